"""Draw circuits with what their files say of them: where they come from, and how good they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from circuitfind.choice import chosen
from circuitfind.circuit import Circuit
from circuitfind.comparison.common_graph import how_compared
from circuitfind.comparison.roles import labels
from circuitfind.constant_files import ablation_name
from circuitfind.directories.directory import SCORECARD, circuit_file, load_circuit_of
from circuitfind.directories.kinds import content_kind
from circuitfind.directories.results import read_scorecard
from circuitfind.directories.work import CIRCUIT
from circuitfind.errors import GraphError, ReportError
from circuitfind.evaluation.scorecard import Measurement, Scorecard, shown
from circuitfind.limits import require_fields
from circuitfind.methods.settings import settings_apart_from_seed, size_asked
from circuitfind.reports.diagram import MAX_EDGES, Diagram, draw_circuit, draw_difference
from circuitfind.reports.style import restyled
from circuitfind.verbs.roles import read_roles, roles_file

_LONGEST_TITLE = 500
_SAID = frozenset(
    ("task", "model", "model_name", "method", "threshold", "n_edges", "ablation", "unit")
    + ("task_digest", "ablation_digest", "model_fingerprint", "prompts_fingerprint")
)
"""Settings that `origin_line` shows, and fingerprints, which people cannot read."""


@dataclass(frozen=True)
class Look:
    """Options of a drawing.

    Attributes:
        title: The first line under it; empty for none.
        top: How many edges are drawn at most, those with the largest effects; None for the usual
            limit.
        merge_qkv: Whether edges of one writer into one head are one line.
        layers: Layers whose edges are drawn, such as `3-5,8`: those between two of them, or from
            the embedding, or into the logits. None draws all.
        style: `colour`, `greyscale` or `dark`.
        cm: Width on paper in centimetres, for SVG and PDF; None is what the drawing needs.
    """

    title: str = ""
    top: int | None = None
    merge_qkv: bool = False
    layers: str | None = None
    style: str = "colour"
    cm: float | None = None

    def __post_init__(self) -> None:
        require_fields(self)
        if len(self.title) > _LONGEST_TITLE:
            raise ReportError(
                f"a title has at most {_LONGEST_TITLE} characters, not {len(self.title)}; "
                "give a shorter one"
            )

    @property
    def suffix(self) -> str:
        """End of the file's name, where the drawing is not the usual one."""
        parts = [f"top-{self.top}"] if self.top is not None else []
        parts += ["merged"] * self.merge_qkv + ["titled"] * bool(self.title)
        parts += [] if self.layers is None else [f"layers-{self.layers.replace(',', '+')}"]
        parts += [self.style] * (self.style != "colour")
        parts += [] if self.cm is None else [f"{self.cm:g}cm"]
        return "".join(f"-{part}" for part in parts)

    @property
    def head(self) -> list[str]:
        """The lines above the caption."""
        return [self.title] if self.title else []

    @property
    def max_edges(self) -> int:
        """Number of edges that are drawn."""
        return MAX_EDGES if self.top is None else self.top

    def part(self, circuit: Circuit) -> tuple[Circuit, list[str]]:
        """Return the circuit of the layers that are drawn, and the line that says so.

        Raises:
            MethodError: The model has no such layer.
        """
        if self.layers is None:
            return circuit, []
        n_layers = len(circuit.graph.attention)
        inside = chosen(self.layers, n_layers, "layer")
        ends = circuit.graph.writers, circuit.graph.readers
        writes, reads = (
            torch.tensor([end.layer is None or end.layer in inside for end in each])
            for each in ends
        )
        kept = circuit.kept.cpu() & writes[:, None] & reads
        drawn = replace(circuit, kept=kept)
        every = f"0 to {n_layers - 1}"
        words = f"layers {self.layers} of {every}: {drawn.n_edges} of {circuit.n_edges} edges"
        return drawn, [words]

    def applied(self, diagram: Diagram) -> Diagram:
        """Return a drawing in the style and size of this look."""
        return Diagram(restyled(diagram.dot, self.style, self.cm))


USUAL_LOOK = Look()


def draw_run(path: Path, look: Look = USUAL_LOOK) -> tuple[Diagram, Path]:
    """Draw the circuit of a run directory or file, and say where the drawing belongs.

    Raises:
        CircuitfindError: There is no circuit, or a file cannot be trusted.
    """
    circuit, file = load_circuit_of(path), circuit_file(path)
    card_file = file.with_name(SCORECARD)
    # In a directory without a search, the file holds an evaluation alone.
    is_run = file.name == CIRCUIT and content_kind(file.parent) == "search"
    belongs = is_run and card_file.is_file()
    card = read_scorecard(card_file)[0] if belongs else None
    name = "diagram" if file.name == CIRCUIT else file.stem
    found = read_roles(roles_file(path), circuit)
    diagram = draw_result(circuit, card, labels(found or ()), look)
    return look.applied(diagram), file.with_name(f"{name}{look.suffix}.svg")


def draw_runs(left: Path, right: Path, look: Look = USUAL_LOOK) -> tuple[Diagram, Path]:
    """Draw what two circuits share and what they do not, and say where the drawing belongs.

    Raises:
        CircuitfindError: There is no circuit, a file cannot be trusted, the circuits belong to
            different models or have no place in common, or q, k and v are to be merged.
    """
    if look.merge_qkv:
        raise ReportError(
            "the difference of two circuits is drawn with q, k and v apart; leave --merge-qkv out"
        )
    circuit, other = load_circuit_of(left), load_circuit_of(right)
    ours, theirs = names_of(left, right)
    both = (ours, circuit), (theirs, other)
    (ours_drawn, words), (theirs_drawn, _) = look.part(circuit), look.part(other)
    try:
        diagram = draw_difference(
            ours_drawn,
            theirs_drawn,
            names=(ours, theirs),
            caption=[*look.head, *captions(both), *how_compared(*both), *words],
            max_edges=look.max_edges,
        )
    except GraphError as error:
        raise GraphError(f"{right} cannot be drawn against {left}: {error}") from None
    file_name = f"difference-{theirs.replace('/', '-').strip('-.')}{look.suffix}.svg"
    return look.applied(diagram), circuit_file(left).with_name(file_name)


def captions(named: Sequence[tuple[str, Circuit]]) -> list[str]:
    """Return a line for each of some circuits, with the settings in which they differ."""
    settings = [_settings(circuit) for _, circuit in named]
    differing = [
        name
        for name in dict.fromkeys(name for each in settings for name in each)
        if len({json.dumps(each.get(name)) for each in settings}) > 1
    ]
    lines = []
    for (name, circuit), each in zip(named, settings, strict=True):
        parts = [f"{circuit.n_edges} edges"]
        parts += [f"{key.replace('_', ' ')} {each[key]}" for key in differing if key in each]
        start = f"{name}: {origin_line(circuit)}".rstrip(": ")
        lines.append(f"{start}{', ' if origin_line(circuit) else ': '}{', '.join(parts)}")
    return lines


def _settings(circuit: Circuit) -> dict[str, Any]:
    """Return what a circuit was found with, except for what its line says anyway."""
    origin = circuit.origin
    said = _SAID if circuit.graph.units else {*_SAID, "shortlist", "ranked_by"}
    return {
        name: value
        for name, value in {**origin, **settings_apart_from_seed(origin)}.items()
        if name not in said and isinstance(value, str | int | float | bool)
    }


def names_of(left: Path, right: Path) -> tuple[str, str]:
    """Return what two circuits are called: as short as tells them apart."""
    ours, theirs = name_of(left), name_of(right)
    return (ours, theirs) if ours != theirs else (str(left), str(right))


def name_of(path: Path) -> str:
    """Return what a circuit is called: its run directory's name, or that of its file."""
    file = circuit_file(path).resolve()
    return file.parent.name if file.name == CIRCUIT else file.stem


def draw_result(
    circuit: Circuit,
    card: Scorecard | None,
    roles: Mapping[str, str] | None = None,
    look: Look = USUAL_LOOK,
) -> Diagram:
    """Draw a circuit with its provenance and, where they are known, its figures."""
    size = f"{circuit.n_edges} of {circuit.graph.n_edges} edges"
    figures = size if card is None else f"{size}, {_figures(card)}"
    drawn, words = look.part(circuit)
    caption = [line for line in (*look.head, origin_line(circuit), figures, *words) if line]
    return draw_circuit(
        drawn,
        caption=caption,
        roles=roles,
        unit=circuit.origin.get("unit", ""),
        max_edges=look.max_edges,
        merge_qkv=look.merge_qkv,
    )


def origin_line(circuit: Circuit) -> str:
    """Return task, model and method of a circuit in a line; empty for one without provenance."""
    origin = circuit.origin
    if not {"task", "model_name", "method", "ablation"} <= set(origin):
        return ""
    asked = size_asked(origin["method"], origin.get("options"), origin.get("selection"))
    settings = [f"{name.replace('_', ' ')} {value}" for name, value in asked.items()]
    return (
        f"{Path(origin['task']).stem} in {origin['model_name']}: "
        f"{', '.join([origin['method'], *settings])}, {ablation_name(origin['ablation'])} ablation"
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
