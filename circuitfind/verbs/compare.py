"""Compare circuits from their files: read them, measure what must be measured, write the result."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.comparison.overlap import require_edges
from circuitfind.comparison.result import Comparison
from circuitfind.comparison.roles import labels
from circuitfind.directories.comparison import COMPARISON, ComparisonConfig, ComparisonDirectory
from circuitfind.directories.directory import circuit_file, effects_of, load_circuit_of
from circuitfind.directories.naming import default_path
from circuitfind.environment import environment
from circuitfind.errors import GraphError, RunDirectoryError
from circuitfind.files import digest
from circuitfind.reports.diagram import Diagram, draw_difference
from circuitfind.reports.matched import Drawn, draw_matched
from circuitfind.reports.matrix import draw_matrix
from circuitfind.verbs.comparison_pairs import Loaded, compare_all
from circuitfind.verbs.draw import captions, name_of


def compare_files(
    paths: Sequence[Path],
    out: Path,
    settings: ComparisonConfig,
    *,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
) -> tuple[Comparison, list[Path]]:
    """Compare circuits and write `comparison.json` and drawings.

    Args:
        paths: Run directories or circuit files, two or more.
        out: The directory to write to; made if it does not exist.
        settings: How to compare.
        model: What `load_model` returned or takes, for all circuits, or such by the names that the
            runs give their models; by default what the runs name.
        tell: Called with what a user should know.

    Returns:
        The comparison, and the drawings.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    loaded = load_all(paths)
    directory = ComparisonDirectory.open(out, _of(loaded, settings))
    if (earlier := directory.result()) is not None:
        tell(f"{out} is finished: its results are read, not computed again")
        return earlier, sorted(file for file in out.iterdir() if file.suffix in (".dot", ".svg"))
    with directory.working():
        directory.begin()
        sides, pairs = compare_all(loaded, settings, tell, model)
        found = Comparison(sides, pairs, directory.config.identity, environment())
        return found, _write(directory, found, loaded)


def _of(loaded: Sequence[Loaded], settings: ComparisonConfig) -> ComparisonConfig:
    return replace(settings, circuits=tuple(each.digest for each in loaded))


def path_of_comparison(paths: Sequence[Path], settings: ComparisonConfig) -> Path:
    """Return the directory of a comparison unless the user names one.

    Raises:
        CircuitfindError: A circuit cannot be read.
    """
    loaded = load_all(paths)
    config = _of(loaded, settings)
    about = ["comparison", *(_plain(each.name) for each in loaded)]
    return default_path(
        about,
        {"by-name": settings.by_name},
        lambda path: ComparisonDirectory.can_take(path, config),
    )


def load_all(paths: Sequence[Path]) -> tuple[Loaded, ...]:
    """Read circuits and give them names that tell them apart.

    Raises:
        CircuitfindError: There are fewer than two, or one cannot be read or keeps no edge.
    """
    if len(paths) < 2:
        raise RunDirectoryError(
            f"give two or more run directories or circuit files, not {len(paths)}"
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
        return Loaded(path, name, digest(circuit_file(path)), circuit, _effects(path, circuit))
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None


def _effects(path: Path, circuit: Circuit) -> EdgeScores | None:
    """Return what a run measured of all edges, or what a circuit file says of those it keeps."""
    known = effects_of(path, circuit) if path.is_dir() else None
    values = circuit.effects if known is None else known
    if values is None or bool(values.isnan().all()):
        return None
    origin = circuit.origin
    return EdgeScores(circuit.graph, values, str(origin.get("unit", "")), str(origin.get("method")))


def _write(
    directory: ComparisonDirectory, found: Comparison, loaded: Sequence[Loaded]
) -> list[Path]:
    files = dict(_files(_drawings(found, loaded)))
    for name, content in files.items():
        directory.write(name, content)
    # Written last: where it is, everything else is too.
    directory.write(COMPARISON, found.to_json())
    return sorted(directory.path / name for name in files)


def _files(drawings: Iterator[tuple[str, Diagram]]) -> Iterator[tuple[str, str]]:
    for name, diagram in drawings:
        yield f"{name}.svg", diagram.svg()
        yield f"{name}.dot", diagram.dot


def _drawings(found: Comparison, loaded: Sequence[Loaded]) -> Iterator[tuple[str, Diagram]]:
    """Yield drawings by name: the difference of each two circuits, a matrix of three or more."""
    if len(found.circuits) > 2:
        yield "matrix", draw_matrix(found)
    roles = [labels(side.roles or ()) for side in found.circuits]
    for pair in found.pairs:
        ours, theirs = loaded[pair.left], loaded[pair.right]
        between = f"{_plain(ours.name)}-{_plain(theirs.name)}"
        caption = captions([(each.name, each.circuit) for each in (ours, theirs)])
        if pair.matched is not None:
            left, right = (
                Drawn(loaded[number].name, loaded[number].circuit, roles[number])
                for number in (pair.left, pair.right)
            )
            yield (
                f"matched-{between}",
                draw_matched(pair.matched, left, right, caption=caption),
            )
        elif pair.overlap is not None:
            yield (
                f"difference-{between}",
                draw_difference(
                    ours.circuit,
                    theirs.circuit,
                    names=(ours.name, theirs.name),
                    caption=caption,
                ),
            )


def _plain(name: str) -> str:
    return name.strip("/.").replace("/", "-")
