"""A comparison as a value and as a file: which circuits, what each two share, what it cost.

Reading `comparison.json` checks that every field has its type, and that shares and
probabilities lie between 0 and 1.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import gt
from pathlib import Path
from typing import Any

from circuitfind import records
from circuitfind.comparison.chance import Chance, Statistic
from circuitfind.comparison.matching import Matched
from circuitfind.comparison.overlap import Overlap, Shared
from circuitfind.comparison.roles import Role
from circuitfind.comparison.transfer import Transfer
from circuitfind.errors import ResultFileError, shortened
from circuitfind.files import path_of, read_text
from circuitfind.notebook import Tabled
from circuitfind.records import parse_json

FORMAT = "circuitfind comparison 1"


@dataclass(frozen=True)
class Side:
    """One of the circuits.

    Attributes:
        name: As short as tells it apart from the others.
        path: Where it was read from.
        digest: A hash of the file.
        task: What it does; None where its file does not say.
        model: Name of its model; None likewise.
        method: What found it; None likewise.
        n_edges: Edges kept.
        n_edges_full: Edges of its graph.
        components: Heads and MLPs, or parts of MLPs, that read or write along a kept edge.
        roles: What the heads of its model do on its prompts; None if that was not measured.
        question: Task, model, metric and all else that fixed its problem; None where its file does
            not say.
        n_units_full: Neurons and latents of its graph.
    """

    name: str
    path: str
    digest: str
    task: str | None
    model: str | None
    method: str | None
    n_edges: int
    n_edges_full: int
    components: tuple[str, ...]
    roles: tuple[Role, ...] | None = None
    question: Mapping[str, Any] | None = None
    n_units_full: int = 0


@dataclass(frozen=True)
class Pair:
    """The comparison of two circuits.

    Attributes:
        left: Number of a circuit, from 0.
        right: Number of another.
        same_model: Whether both are of one model; None where a file does not say.
        overlap: What they share by name; None if they belong to different graphs.
        matched: What they share where components are matched by what they do; None for circuits
            of one model, and if it was not measured.
        transfers: Each on the other's problem, for circuits of one model on different prompts.
        places: Where they tell different places apart, those at which they are compared by name:
            the places that both have; none where the places of one are merged. None elsewhere.
    """

    left: int
    right: int
    same_model: bool | None
    overlap: Overlap | None
    matched: Matched | None = None
    transfers: tuple[Transfer, ...] = ()
    places: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Comparison(Tabled):
    """The comparison of several circuits, pair by pair.

    Attributes:
        circuits: The circuits.
        pairs: Each two of them.
        settings: What fixed the result besides the circuits.
        versions: What it was computed with.
    """

    circuits: tuple[Side, ...]
    pairs: tuple[Pair, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        names = shortened(", ".join(side.name for side in self.circuits))[:150]
        return f"<Comparison of {len(self.circuits)} circuits, {len(self.pairs)} pairs: {names}>"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a row per pair: how many edges and components are shared, and the Jaccard index."""
        for pair in self.pairs:
            by = pair.overlap or pair.matched
            left, right = self.circuits[pair.left], self.circuits[pair.right]
            row: dict[str, Any] = {"left": left.name, "right": right.name}
            row["by"] = "name" if pair.overlap else "matching" if pair.matched else ""
            for kind in ("edges", "components"):
                shared: Shared | None = None if by is None else getattr(by, kind)
                row[f"shared_{kind}"] = None if shared is None else len(shared.both)
                row[f"jaccard_{kind}"] = None if shared is None else shared.jaccard.value
            yield row

    def to_json(self) -> str:
        """Return the comparison as JSON text."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return {"format": FORMAT, **records.as_json(self)}


def load_comparison(path: Path | str) -> Comparison:
    """Read a comparison.

    Raises:
        ResultFileError: The file is missing, damaged, or of another format.
        NewerFileError: A newer version has written it.
    """
    try:
        content = records.body_of(parse_json(read_text(path_of(path))), FORMAT, path)
        found: Comparison = records.from_json(Comparison, content)
        _require_sense(found)
    except OSError as error:
        raise ResultFileError(f"cannot read the comparison {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ResultFileError(
            f"{path} is not a comparison, or was damaged: {type(error).__name__}: {error}; "
            "comparisons are written by `circuitfind compare`"
        ) from None
    return found


def _require_sense(found: Comparison) -> None:
    n = len(found.circuits)
    for pair in found.pairs:
        if not (0 <= pair.left < n and 0 <= pair.right < n):
            raise ValueError(f"it compares circuits {pair.left} and {pair.right} of {n}")
        for chance in _chances(pair):
            if not 0 <= chance.p_value <= 1:
                raise ValueError(f"a probability is {chance.p_value}")
        if pair.overlap is not None:
            sizes = _sizes(pair.overlap.edges)
            stated = tuple(found.circuits[side].n_edges for side in (pair.left, pair.right))
            if sizes != stated and (pair.places is None or any(map(gt, sizes, stated))):
                raise ValueError(f"circuits of {stated} edges are listed with {sizes}")


def _sizes(shared: Shared) -> tuple[int, int]:
    return len(shared.both) + len(shared.left), len(shared.both) + len(shared.right)


def _chances(pair: Pair) -> Iterator[Chance]:
    parts = [part for part in (pair.overlap, pair.matched) if part is not None]
    statistics: list[Statistic] = [row.faithfulness for row in pair.transfers]
    for part in parts:
        for shared in (part.edges, part.components):
            statistics += [shared.jaccard, shared.coefficient]
    if pair.overlap is not None:
        statistics.append(pair.overlap.correlation)
    for statistic in statistics:
        yield from statistic.chance.values()
