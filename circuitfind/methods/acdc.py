"""ACDC: cut every edge whose absence the metric does not miss (Conmy et al. 2023, algorithm 1).

1. Start from the full graph; `current` is its loss.
2. Visit readers from the logits back, and each reader's writers from the latest back.
3. Cut the edge. If the loss rises by less than the threshold, it stays cut and `current` becomes
   the new loss; otherwise it is restored.
4. What leads into a component that nothing reads any more is cut untested.

The comparison is strict and signed: an edge whose removal lowers the loss goes, however much it
lowers it, and a rise of exactly the threshold keeps the edge. Paper: arXiv 2304.14997.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.graph import Edge
from circuitfind.methods.base import (
    Decision,
    Progress,
    Reason,
    Selection,
    circuit_of,
    without_dead_ends,
)
from circuitfind.methods.order import Order, visits

_FIRST_WIDTH, _LEAST_WIDTH = 8, 4
"""How many candidates to begin with, and at least after an edge that stays.

These, the growth by a half and the shrinking to a half evaluate few candidates in vain for few
batches; they were chosen on the decisions of the benchmark.
"""


@dataclass(frozen=True)
class AcdcOptions:
    """Settings of the ACDC search.

    Attributes:
        threshold: Rise of the loss from which on an edge is kept (the paper's tau), in the
            metric's unit.
        order: In which order the heads of a layer are visited.
        absolute: Compare the size of the effect, so that edges whose removal lowers the loss by
            the threshold or more are kept too.
        group_qkv: Before the edges into a head's port are tested singly, try to cut them all at
            once, as the original code does. It can change the circuit.
        prune: Remove dead ends afterwards where that changes nothing.
        seed: Fixes the random order.
    """

    threshold: float
    order: Order = "backward-index"
    absolute: bool = False
    group_qkv: bool = False
    prune: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise MethodError(
                f"the threshold is {self.threshold}; give a finite number in the metric's unit"
            )
        if self.order not in get_args(Order):
            raise MethodError(
                f"no order named {self.order!r}; choose one of {', '.join(get_args(Order))}"
            )

    def goes(self, edge: str, effect: float) -> bool:
        """Return whether an edge with this effect stays cut."""
        size = abs(effect) if self.absolute else effect
        return size < self.threshold


class Acdc:
    """The ACDC search as an entry of the table of methods."""

    name = "acdc"
    summary = "cut edges one by one from the logits back, keep those the metric misses"
    paper = "Conmy et al. 2023, arXiv 2304.14997, algorithm 1"
    options = AcdcOptions

    def run(
        self, engine: IncrementalEngine, options: AcdcOptions, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Search, yielding after each reader; a resumed search continues bit for bit.

        Raises:
            MethodError: The metric became infinite or NaN when an edge was cut.
        """
        yield from search_from(engine, options, engine.start(), resume)

    def select(
        self, engine: IncrementalEngine, options: AcdcOptions, decisions: Sequence[Decision]
    ) -> Selection:
        """Return the kept edges, without dead ends where removing them is free."""
        circuit = circuit_of(engine.graph, decisions)
        return without_dead_ends(engine, circuit, prune=options.prune)


def search_from(
    engine: IncrementalEngine,
    options: AcdcOptions,
    state: EngineState,
    resume: Sequence[Decision] = (),
    goes: Callable[[str, float], bool] | None = None,
) -> Iterator[Progress]:
    """Search among the edges that a state keeps, yielding after each reader.

    Edges that it has cut already stay cut, untested.

    Args:
        engine: The problem, made ready to cut edges.
        options: The search's settings.
        state: What it starts from.
        resume: Decisions of an earlier, interrupted run of the same search.
        goes: Says of an edge by name, and its effect, whether it goes; the threshold's rule
            unless given.

    Raises:
        MethodError: The metric became infinite or NaN when an edge was cut.
    """
    search = _Search(engine, options, state, goes or options.goes)
    done, total = 0, engine.graph.n_edges
    for reader, writers in visits(engine.graph, options.order, options.seed):
        replayed = resume[done : done + len(writers)]
        done += len(writers)
        if len(replayed) == len(writers):
            search.replay(reader, writers, replayed)
            continue
        yield Progress(done, total, tuple(search.visit(reader, writers)))
    yield Progress(total, total, (), drift=search.drift())


def evaluations(stays: Sequence[bool], most: int) -> int:
    """Return how many cuts are evaluated to test edges of which these stay, at most `most` at once.

    They are more than the edges: what was evaluated after an edge that stays is evaluated again.
    """
    done, width, evaluated = 0, _FIRST_WIDTH, 0
    while done < len(stays):
        batch = stays[done : done + min(width, most)]
        evaluated += len(batch)
        any_stays = any(batch)
        done += batch.index(True) + 1 if any_stays else len(batch)
        width = _next_width(min(width, most), stays=any_stays)
    return evaluated


def _next_width(width: int, *, stays: bool) -> int:
    return max(_LEAST_WIDTH, width // 2) if stays else width + width // 2


class _Search:
    """A search in progress: the circuit as it stands, and its loss."""

    def __init__(
        self,
        engine: IncrementalEngine,
        options: AcdcOptions,
        state: EngineState,
        goes: Callable[[str, float], bool],
    ) -> None:
        self._engine, self._options, self._goes = engine, options, goes
        self._state = state
        self._current = engine.loss(self._state)

    def visit(self, reader: int, writers: Sequence[int]) -> list[Decision]:
        """Decide about all edges into one reader."""
        kept = self._state.kept[:, reader]
        there = [writer for writer in writers if kept[writer]]
        gone = [writer for writer in writers if not kept[writer]]
        by_writer = dict(zip(gone, self._all_cut(reader, gone, "scored"), strict=True))
        by_writer |= dict(zip(there, self._decide(reader, there), strict=True))
        decisions = [by_writer[writer] for writer in writers]
        self._settle(reader, writers, decisions)
        return decisions

    def replay(self, reader: int, writers: Sequence[int], decisions: Sequence[Decision]) -> None:
        """Repeat what an earlier run of the search decided.

        Raises:
            MethodError: The decisions are not those of this search.
        """
        names = [self._edge(reader, writer).name for writer in writers]
        if names != [decision.edge for decision in decisions]:
            raise MethodError(
                f"the earlier decisions do not fit this search: {decisions[0].edge!r} stands where "
                f"{names[0]!r} should; start in an empty directory"
            )
        self._settle(reader, writers, decisions)

    def _settle(self, reader: int, writers: Sequence[int], decisions: Sequence[Decision]) -> None:
        """Cut what was decided to be cut into a reader, all at once.

        Searches continue from this state, so that rounding depends on nothing but the decisions:
        a resumed search repeats it to the last bit.
        """
        gone = [w for w, decision in zip(writers, decisions, strict=True) if not decision.kept]
        if gone:
            self._state = self._cut(reader, gone)
        # Edges that went untested changed nothing: they were cut before, or nothing reads them.
        measured = [each.after for each in decisions if not each.kept and each.after is not None]
        if measured:
            self._current = measured[-1]

    def drift(self) -> float:
        """Hold the state to a pass from scratch.

        Raises:
            MethodError: They differ by more than rounding explains.
        """
        return self._engine.require_no_drift(self._state)

    def _decide(self, reader: int, writers: Sequence[int]) -> list[Decision]:
        if not writers:
            return []
        if not self._state.live_readers[reader]:
            return self._all_cut(reader, writers, "dead")
        group = self._test_group(reader, writers)
        if group is not None:
            return self._all_cut(reader, writers, "group", self._current, group)
        return list(self._test_all(reader, writers))

    def _test_all(self, reader: int, writers: Sequence[int]) -> Iterator[Decision]:
        """Test edges one after the other, many at a time.

        Candidates are nested: the first edge cut, the first two, and so on. Up to the first edge
        that must stay these are the very states that testing one by one would meet; what comes
        after it is evaluated again. The number of candidates grows while edges go and shrinks
        when one stays.
        """
        state, before = self._state, self._current
        done, width = 0, _FIRST_WIDTH
        while done < len(writers):
            width = min(width, self._engine.most_candidates)
            batch = writers[done : done + width]
            trial = self._engine.cut_nested(state, reader, batch)
            gone, stays = 0, False
            for writer, after in zip(batch, trial.losses(), strict=True):
                decision = self._decision(self._edge(reader, writer).name, before, after)
                yield decision
                if stays := decision.kept:
                    break
                gone, before = gone + 1, after
            if gone:
                kept = state.kept.copy()
                kept[batch[:gone], reader] = False
                state = trial.pick(gone - 1, kept)
            done += gone + stays
            width = _next_width(width, stays=stays)

    def _decision(self, name: str, before: float, after: float) -> Decision:
        effect = self._effect(name, before, after)
        return Decision(name, not self._goes(name, effect), "tested", before, after, effect)

    def _test_group(self, reader: int, writers: Sequence[int]) -> float | None:
        """Try to cut all edges into a port at once; return the loss after it if they go."""
        port = self._engine.graph.readers[reader].port
        if not (self._options.group_qkv and port):
            return None
        after = self._engine.loss(self._cut(reader, writers))
        name = f"every edge into {self._engine.graph.readers[reader].name}"
        return after if self._goes(name, self._effect(name, self._current, after)) else None

    def _effect(self, name: str, before: float, after: float) -> float:
        if not math.isfinite(after):
            raise MethodError(
                f"the loss became {after} when {name} was cut; choose a metric that stays finite "
                "on these prompts, or a wider number type"
            )
        return after - before

    def _cut(self, reader: int, writers: Sequence[int]) -> EngineState:
        return self._engine.cut(self._state, [(writer, reader) for writer in writers])

    def _all_cut(
        self,
        reader: int,
        writers: Sequence[int],
        reason: Reason,
        before: float | None = None,
        after: float | None = None,
    ) -> list[Decision]:
        names = [self._edge(reader, writer).name for writer in writers]
        return [Decision(name, False, reason, before, after) for name in names]  # noqa: FBT003

    def _edge(self, reader: int, writer: int) -> Edge:
        graph = self._engine.graph
        return Edge(graph.writers[writer], graph.readers[reader])
