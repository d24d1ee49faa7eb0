"""Rivals of a circuit: others that are no larger and at least as faithful, and what they share.

A rival has an edge that the circuit lacks; a part of the circuit that does as well says that the
circuit is not minimal, and is counted apart. Searches find rivals and cannot show that there are no
others. If none of n independent restarts shares less than x with the circuit, then fewer than
1 - 0.05^(1/n) of all restarts do, with 95 % confidence: a larger share would have shown itself with
a probability of more than 95 %. Restarts differ in kind and price. If one shares less than x with
probability p_i, none of them does with probability (1 - p_1) ... (1 - p_n), which is at most
(1 - p)^n for the mean p of all p_i: the share is that among restarts in this mix. It is a statement
about this search, not about all circuits. Where every circuit of a small graph was measured, the
least overlap is proved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuitfind import records
from circuitfind.circuit import Circuit
from circuitfind.comparison.chance import LAYER_PROFILE
from circuitfind.comparison.overlap import edges_by_profile
from circuitfind.evaluation.intervals import LEVEL


@dataclass(frozen=True)
class Rival:
    """A circuit that does what another one does.

    Attributes:
        edges: Its edges.
        faithfulness: On the prompts of the search.
        held_out: On other prompts; None where there are none.
        jaccard: Share of the edges of both circuits that both have.
        by_chance: What is expected of random circuits with the same layer profiles.
        components: The same share of heads and MLPs.
        gone: Heads and MLPs that the found circuit has and this one lacks.
        instead: Those that this one has and the found circuit lacks.
    """

    edges: tuple[str, ...]
    faithfulness: float
    held_out: float | None
    jaccard: float
    by_chance: float
    components: float
    gone: tuple[str, ...]
    instead: tuple[str, ...]


@dataclass(frozen=True)
class Restarts:
    """What came of the restarts of one kind.

    Attributes:
        kind: `acdc`, or `learned masks`.
        n: How many there were, but for those that failed.
        n_met: How many of them ended in a rival.
        least: The least overlap with these; None without any.
        n_failed: Of how many each training ended with an infinite loss, or one that is NaN.
    """

    kind: str
    n: int
    n_met: int
    least: float | None
    n_failed: int = 0

    def __str__(self) -> str:
        least = "" if self.least is None else f", least overlap {self.least:.3f}"
        failed = f", {self.n_failed} more ended with an infinite loss" if self.n_failed else ""
        return f"{self.kind}: {self.n_met} of {self.n} met a rival{least}{failed}"


@dataclass(frozen=True)
class Rivals:
    """A circuit and its rivals.

    Attributes:
        n_edges: Edges of the circuit.
        faithfulness: Its faithfulness on the prompts of the search.
        held_out: On other prompts; None where there are none.
        target: How faithful a rival must be.
        rivals: The rivals, the one that shares least first.
        core: Edges of the circuit that every rival has too; none where there is no rival.
        spared: Edges of the circuit that no rival has; none where there is no rival.
        n_unused: Edges of the graph that neither the circuit nor a rival has.
        n_within: Parts of the circuit that are as faithful: with any, it is not minimal.
        proved: Whether every circuit of at most as many edges was considered.
        n_considered: How many sets of edges that were; 0 if they were too many.
        n_measured: How many of them were measured: those without dead ends, where these are free.
        n_restarts: How many restarts were made, but for those that failed.
        n_met: How many of them ended in a rival.
        unseen: Share of all restarts, in the same mix of kinds, that can at most lead to a smaller
            overlap than the least that was found, or to any rival where there was none, with 95 %
            confidence; None where nothing was searched for.
        seconds: How long it took; of the last process alone, where an earlier one was interrupted.
        rounding: By how much a rival may be less faithful than the target, because numbers are
            rounded; None in files of before it was written down.
        kinds: What came of the restarts of each kind.
    """

    n_edges: int
    faithfulness: float
    held_out: float | None
    target: float
    rivals: tuple[Rival, ...]
    core: tuple[str, ...]
    spared: tuple[str, ...]
    n_unused: int
    n_within: int
    proved: bool
    n_considered: int
    n_measured: int
    n_restarts: int
    n_met: int
    unseen: float | None
    seconds: float
    rounding: float | None = None
    kinds: tuple[Restarts, ...] = ()

    @property
    def least(self) -> float | None:
        """The least overlap with a rival, as the Jaccard index of edges; None without a rival."""
        return self.rivals[0].jaccard if self.rivals else None

    @property
    def verdict(self) -> str:
        """What was shown, in a sentence."""
        if self.proved:
            what = (
                "there is no rival"
                if self.least is None
                else f"no rival shares less than {self.least:.3f}"
            )
            of = f"{self.n_considered} sets of edges considered"
            within = "" if self.rounding is None else f"; rounding taken as {self.rounding:g}"
            return f"proved: {what} ({of}{within})"
        what = "no rival" if self.least is None else f"least overlap {self.least:.3f}"
        beyond = "lead to a rival" if self.least is None else "share less"
        n, mix = self.n_restarts, " in this mix of kinds" * (len(self.kinds) > 1)
        return (
            f"{what} in {n} restart{'s' * (n != 1)}; at most {self.unseen or 0:.1%} of such "
            f"restarts{mix} {beyond} ({LEVEL:.0%} confidence)"
        )

    @property
    def needed(self) -> str:
        """Which edges of the circuit are needed, where there is no rival, in words."""
        if not self.proved:
            return "not known: no rival was found, and parts of the circuit were not tried"
        if self.n_within:
            return f"not all: {self.n_within} of the circuit's parts are as faithful"
        return f"all {self.n_edges}: no other set of at most as many edges is as faithful"

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found: dict[str, Any] = records.as_json(self)
        return found


def is_rival(circuit: Circuit, other: Circuit) -> bool:
    """Return whether another circuit has an edge that the circuit lacks."""
    return bool((other.kept.cpu() & ~circuit.kept.cpu()).any())


def rival_of(
    circuit: Circuit, other: Circuit, faithfulness: float, held_out: float | None
) -> Rival:
    """Hold a circuit that is faithful enough against the one that was found."""
    edges = edges_by_profile(circuit, other)
    ours, theirs = circuit.heads_and_mlps, other.heads_and_mlps
    union = {*ours, *theirs}
    assert edges.value is not None
    return Rival(
        tuple(edge.name for edge in other.edges),
        faithfulness,
        held_out,
        edges.value,
        edges.chance[LAYER_PROFILE].expected,
        len({*ours} & {*theirs}) / len(union) if union else 1.0,
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
    )


def shared_by_all(
    circuit: Circuit, rivals: Sequence[Rival]
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return a circuit's edges that all rivals have, those that none has, and how many are unused.

    The last are edges of the graph that neither the circuit nor a rival has.
    """
    own = [edge.name for edge in circuit.edges]
    sets = [set(rival.edges) for rival in rivals]
    core = tuple(edge for edge in own if sets and all(edge in each for each in sets))
    spared = tuple(edge for edge in own if sets and not any(edge in each for each in sets))
    return core, spared, circuit.graph.n_edges - len(set(own).union(*sets))
