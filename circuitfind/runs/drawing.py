"""Draw circuits with what their files say of them: where they come from, and how good they are."""

from collections.abc import Mapping
from pathlib import Path

from circuitfind.circuit import Circuit
from circuitfind.comparison.roles import labels
from circuitfind.evaluation.scorecard import Measurement, Scorecard, shown
from circuitfind.reports.diagram import Diagram, draw_circuit, draw_difference
from circuitfind.runs.directory import CIRCUIT, SCORECARD, circuit_file, load_circuit_of
from circuitfind.runs.results import read_scorecard
from circuitfind.runs.roles import read_roles, roles_file


def draw_run(path: Path) -> tuple[Diagram, Path]:
    """Draw the circuit of a run directory or file, and say where the drawing belongs.

    Raises:
        CircuitfindError: There is no circuit, or a file cannot be trusted.
    """
    circuit, file = load_circuit_of(path), circuit_file(path)
    card_file = file.with_name(SCORECARD)
    belongs = file.name == CIRCUIT and card_file.is_file()
    card = read_scorecard(card_file)[0] if belongs else None
    name = "diagram.svg" if file.name == CIRCUIT else f"{file.stem}.svg"
    found = read_roles(roles_file(path), circuit)
    return draw_result(circuit, card, labels(found or ())), file.with_name(name)


def draw_runs(left: Path, right: Path) -> tuple[Diagram, Path]:
    """Draw what two circuits share and what they do not, and say where the drawing belongs.

    Raises:
        CircuitfindError: There is no circuit, a file cannot be trusted, or the circuits belong to
            different models.
    """
    circuit = load_circuit_of(left)
    other = load_circuit_of(right, circuit.graph)
    ours, theirs = names_of(left, right)
    caption = [
        f"{name}: {origin_line(found) or f'{found.n_edges} edges'}"
        for name, found in ((ours, circuit), (theirs, other))
    ]
    diagram = draw_difference(circuit, other, names=(ours, theirs), caption=caption)
    file_name = f"difference-{theirs.replace('/', '-').strip('-.')}.svg"
    return diagram, circuit_file(left).with_name(file_name)


def names_of(left: Path, right: Path) -> tuple[str, str]:
    """Return what two circuits are called: as short as tells them apart."""
    ours, theirs = name_of(left), name_of(right)
    return (ours, theirs) if ours != theirs else (str(left), str(right))


def name_of(path: Path) -> str:
    """Return what a circuit is called: its run directory's name, or that of its file."""
    file = circuit_file(path).resolve()
    return file.parent.name if file.name == CIRCUIT else file.stem


def draw_result(
    circuit: Circuit, card: Scorecard | None, roles: Mapping[str, str] | None = None
) -> Diagram:
    """Draw a circuit with its provenance and, where they are known, its figures."""
    size = f"{circuit.n_edges} of {circuit.graph.n_edges} edges"
    figures = size if card is None else f"{size}, {_figures(card)}"
    caption = [line for line in (origin_line(circuit), figures) if line]
    unit = circuit.origin.get("unit", "")
    return draw_circuit(circuit, caption=caption, roles=roles, unit=unit)


def origin_line(circuit: Circuit) -> str:
    """Say what a circuit is of; nothing of one without provenance, as Python can make."""
    origin = circuit.origin
    if not {"task", "model_name", "method", "ablation"} <= set(origin):
        return ""
    options = origin.get("options") or {}
    chosen = [name for name in ("threshold", "n_edges") if options.get(name) is not None]
    settings = [f"{name.replace('_', ' ')} {options[name]}" for name in chosen]
    return (
        f"{Path(origin['task']).stem} in {origin['model_name']}: "
        f"{', '.join([origin['method'], *settings])}, {origin['ablation']} ablation"
    )


def _figures(card: Scorecard) -> str:
    own = card.measurements[0]
    return (
        f"{card.n_prompts} prompts, {own.metric} {shown(own.circuit)} {own.unit} "
        f"(full {shown(own.full)}, empty {shown(own.empty)}), "
        f"faithfulness {', '.join(map(_share, card.measurements))}"
    )


def _share(row: Measurement) -> str:
    value = "undefined" if row.faithfulness is None else f"{row.faithfulness:.2f}"
    return f"{value} ({row.metric})"
