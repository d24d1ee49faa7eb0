"""Compare circuits from their files: read them, measure what must be measured, write the result.

`comparison.json` is written last: where it is, everything else is too. Repeating a command reads
what is there; a directory that holds the comparison of other circuits is refused.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.comparison.chance import DRAWS
from circuitfind.comparison.overlap import at_work, overlap, require_edges
from circuitfind.comparison.result import Comparison, Pair, Side, load_comparison
from circuitfind.errors import GraphError, MethodError, RunDirectoryError
from circuitfind.reports.diagram import draw_difference
from circuitfind.runs.config import environment
from circuitfind.runs.decisions import read_decisions
from circuitfind.runs.directory import (
    DECISIONS,
    circuit_file,
    load_circuit_of,
    reported,
    write_whole,
)
from circuitfind.runs.drawing import name_of, origin_line

COMPARISON = "comparison.json"


@dataclass(frozen=True)
class Settings:
    """How circuits are compared.

    Attributes:
        seed: Fixes what is drawn at random.
        draws: How many exchanges of heads are drawn where there are too many to try all.
    """

    seed: int = 0
    draws: int = DRAWS

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise MethodError(f"{self.draws} draws are none; give --draws 1 or more")


@dataclass(frozen=True)
class Loaded:
    """A circuit with what its files say of it.

    Attributes:
        path: A run directory or a circuit file.
        name: What it is called here.
        circuit: The circuit.
        effects: What was measured of its graph's edges, kept or not.
    """

    path: Path
    name: str
    circuit: Circuit
    effects: EdgeScores | None


def compare_files(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    tell: Callable[[str], None] = lambda message: None,
) -> tuple[Comparison, list[Path]]:
    """Compare circuits and write `comparison.json` and drawings.

    Args:
        paths: Run directories or circuit files, two or more.
        out: The directory to write to; made if it does not exist.
        settings: How to compare.
        tell: Called with what a user should know.

    Returns:
        The comparison, and the drawings.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    loaded = load_all(paths)
    sides = tuple(_side(each) for each in loaded)
    identity = {"seed": settings.seed, "draws": settings.draws}
    if (earlier := _earlier(out, sides, identity)) is not None:
        tell(f"{out} is finished: its results are read, not computed again")
        return earlier, sorted(out.glob("*.svg"))
    pairs = tuple(
        _pair(loaded, left, right, settings)
        for left, right in itertools.combinations(range(len(loaded)), 2)
    )
    found = Comparison(sides, pairs, identity, environment())
    drawings = _write(out, found, loaded)
    return found, drawings


def load_all(paths: Sequence[Path]) -> tuple[Loaded, ...]:
    """Read circuits and give them names that tell them apart.

    Raises:
        CircuitfindError: There are fewer than two, or one cannot be read or keeps no edge.
    """
    if len(paths) < 2:
        raise RunDirectoryError(
            f"{len(paths)} circuits were given; give two or more run directories or circuit files"
        )
    short = [name_of(path) for path in paths]
    names = [
        name if count == 1 else str(path)
        for name, path, count in zip(short, paths, map(Counter(short).get, short), strict=True)
    ]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise RunDirectoryError(f"{repeated[0]} is given twice; give different circuits")
    return tuple(_load(path, name) for path, name in zip(paths, names, strict=True))


def _load(path: Path, name: str) -> Loaded:
    circuit = load_circuit_of(path)
    try:
        require_edges(circuit)
        return Loaded(path, name, circuit, _effects(path, circuit))
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None


def _effects(path: Path, circuit: Circuit) -> EdgeScores | None:
    """Return what a run measured of all edges, or what a circuit file says of those it keeps."""
    values = circuit.effects
    if path.is_dir() and (path / DECISIONS).is_file():
        graph = circuit.graph
        values = torch.full(circuit.kept.shape, torch.nan, dtype=torch.float64)
        for decision in read_decisions(path / DECISIONS):
            edge = graph.edge(decision.edge)
            found = decision.effect if decision.effect is not None else decision.score
            if found is not None:
                values[
                    graph.writer_index[edge.writer.name], graph.reader_index[edge.reader.name]
                ] = found
    if values is None or bool(values.isnan().all()):
        return None
    origin = circuit.origin
    return EdgeScores(circuit.graph, values, str(origin.get("unit", "")), str(origin.get("method")))


def _side(each: Loaded) -> Side:
    circuit, origin = each.circuit, each.circuit.origin
    content = circuit_file(each.path).read_bytes()
    return Side(
        name=each.name,
        path=str(each.path),
        digest=hashlib.sha256(content).hexdigest()[:16],
        task=_text(origin.get("task")),
        model=_text(origin.get("model_name")),
        method=_text(origin.get("method")),
        n_edges=circuit.n_edges,
        n_edges_full=circuit.graph.n_edges,
        n_components=len(at_work(circuit)),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _pair(loaded: Sequence[Loaded], left: int, right: int, settings: Settings) -> Pair:
    ours, theirs = loaded[left], loaded[right]
    same_graph = ours.circuit.graph == theirs.circuit.graph
    found = (
        overlap(
            ours.circuit,
            theirs.circuit,
            effects=(ours.effects, theirs.effects),
            seed=settings.seed,
            draws=settings.draws,
        )
        if same_graph
        else None
    )
    return Pair(left, right, _same_model(ours.circuit, theirs.circuit), found)


def _same_model(left: Circuit, right: Circuit) -> bool | None:
    ours, theirs = (circuit.origin.get("model_fingerprint") for circuit in (left, right))
    if left.graph.shape != right.graph.shape:
        return False
    return None if ours is None or theirs is None else ours == theirs


def _earlier(out: Path, sides: Sequence[Side], identity: dict[str, Any]) -> Comparison | None:
    """Return the comparison that the directory holds, if it is the one asked for."""
    file = out / COMPARISON
    if not file.is_file():
        return None
    found = load_comparison(file)
    if found.settings != identity or [s.digest for s in found.circuits] != [
        s.digest for s in sides
    ]:
        names = ", ".join(side.name for side in found.circuits)
        raise RunDirectoryError(
            f"{out} holds another comparison (of {names}, or with other settings); choose another "
            "--out"
        )
    return found


def _write(out: Path, found: Comparison, loaded: Sequence[Loaded]) -> list[Path]:
    drawings = []
    with reported(out):
        out.mkdir(parents=True, exist_ok=True)
        for pair in found.pairs:
            if pair.overlap is not None:
                ours, theirs = loaded[pair.left], loaded[pair.right]
                file = out / f"difference-{_plain(ours.name)}-{_plain(theirs.name)}.svg"
                caption = [f"{each.name}: {origin_line(each.circuit)}" for each in (ours, theirs)]
                diagram = draw_difference(
                    ours.circuit, theirs.circuit, names=(ours.name, theirs.name), caption=caption
                )
                write_whole(file, diagram.svg())
                drawings.append(file)
        write_whole(out / COMPARISON, found.to_json())
    return drawings


def _plain(name: str) -> str:
    return name.strip("/.").replace("/", "-")
