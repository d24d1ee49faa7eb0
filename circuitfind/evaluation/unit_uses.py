"""What makes the neurons or latents of a circuit active: tokens, and contexts in a text.

A unit's activation is one number at each position. On the prompts, or on any text, a unit is
described by the tokens on which most of its activation falls, by the positions at which it is
strongest, and by how often it is active. Activations of neurons can have both signs, so they are
ranked by size and shown with their sign.

A latent is active where it is not 0. A neuron is hardly ever exactly 0, so it is active where it
has at least a tenth of its largest size; what is below does not count.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.circuit import Circuit, require_same_graph
from circuitfind.dictionaries.fit import in_chunks
from circuitfind.errors import MethodError, require_kind
from circuitfind.evaluation.contexts import (
    ActiveToken,
    Context,
    Texts,
    active_tokens,
    contexts_of,
)
from circuitfind.graph import UNIT_KINDS, Graph, Writer
from circuitfind.limits import require
from circuitfind.models.activations import Activations
from circuitfind.models.base import ResidualModel
from circuitfind.models.units import unit_block
from circuitfind.notebook import Tabled
from circuitfind.problem import HasProblem, as_problem, circuit_of_question
from circuitfind.tasks.plain_text import cut_text

SHOWN = 5
"""How many tokens, and contexts, of each unit are shown unless it is told."""

LEAST_OF_NEURON = 0.1
"""Share of its largest activation from which on a neuron counts as active."""


@dataclass(frozen=True)
class UnitUse:
    """What makes a unit active.

    Attributes:
        name: The unit: `m5.n17`, `m5.f17`.
        effect: The sum of the effects of the kept edges that leave it, in the unit of the loss; or
            of their scores, of a method that has only these. None where none of them is known.
        frequency: Share of the positions at which it is active.
        tokens: The tokens on which most of its activation falls, the first the most.
        contexts: The positions at which it is strongest. Of those with the same text up to there,
            and of those that lie in one another's context, only the strongest.
    """

    name: str
    effect: float | None
    frequency: float
    tokens: tuple[ActiveToken, ...]
    contexts: tuple[Context, ...]


class UnitUses(tuple[UnitUse, ...], Tabled):
    """What makes units active, which a notebook shows as a table."""

    def __repr__(self) -> str:
        return f"<UnitUses: {len(self)} units: {', '.join(each.name for each in self)[:150]}>"

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a row per unit, in their order."""
        for each in self:
            yield {
                "unit": each.name,
                "effect": each.effect,
                "active": each.frequency,
                "tokens": ", ".join(map(str, each.tokens)),
                "contexts": " | ".join(map(str, each.contexts)),
            }


def unit_uses(
    asked: HasProblem,
    circuit: object = None,
    *,
    text: str | None = None,
    n_shown: int = SHOWN,
    tell: Callable[[str], None] = lambda message: None,
) -> UnitUses:
    """Return what makes the neurons or latents of a circuit active, the largest effects first.

    Args:
        asked: The problem, or what a search for its circuit found.
        circuit: The circuit, whose units are those that a kept edge touches; by default what was
            found. Of a problem alone, all units of its graph are looked at, without effects.
        text: What the model reads in place of the clean prompts, in pieces as long as it can read.
        n_shown: Largest number of tokens, and of contexts, of each unit.
        tell: Called with what the model reads.

    Raises:
        MethodError: The graph has no units.
        GraphError: The circuit belongs to another graph.
        TaskError: The model reads no text, or cannot read this one.
    """
    require(n_shown=n_shown)
    problem = as_problem(asked)
    require_units_in(problem.graph)
    of = None
    if circuit is not None or hasattr(asked, "circuit"):
        of = circuit_of_question(asked, circuit)
        require_same_graph(of.graph, problem.graph)
    effects = _effects(problem.graph, of)
    model, prompts = problem.model, problem.prompts
    if text is None:
        texts = Texts(prompts.clean.cpu(), prompts.real.cpu(), model.vocabulary)
        tell(f"activations on the {prompts.n_prompts:,} clean prompts")
    else:
        require_kind(text, str, "a text; give what the model is to read")
        texts = Texts(*cut_text(model, text, tell), model.vocabulary)
    graph = problem.graph
    return UnitUses(
        _use(name, effects[name], values, texts, n_shown, least=_least(graph.writer(name)))
        for name, values in _activations(graph, model, list(effects), texts).items()
    )


def require_units_in(graph: Graph) -> None:
    """Refuse a graph without units.

    Raises:
        MethodError: The message says how to get some.
    """
    if not graph.units:
        raise MethodError(
            "the circuit has no neurons and no latents: its MLPs write as a whole; search with "
            "--neurons or --latents (in Python `make_problem(neurons=...)` or `latents=...`)"
        )


def _least(unit: Writer) -> float:
    return LEAST_OF_NEURON if unit.kind == "neuron" else 0.0


def _effects(graph: Graph, circuit: Circuit | None) -> dict[str, float | None]:
    """Return the units that are looked at, the largest effects first, each with its effect."""
    units = [writer.name for writer in graph.writers if writer.kind in UNIT_KINDS]
    if circuit is None:
        return dict.fromkeys(units)
    touched = circuit.components
    found = {name: _effect(circuit, graph.writer_index[name]) for name in units if name in touched}
    return dict(sorted(found.items(), key=lambda item: -abs(item[1] or 0)))


def _effect(circuit: Circuit, writer: int) -> float | None:
    if circuit.effects is None:
        return None
    known = circuit.effects[writer][circuit.kept[writer]]
    known = known[~known.isnan()]
    return float(known.double().sum()) if len(known) else None


def _activations(
    graph: Graph, model: ResidualModel, names: list[str], texts: Texts
) -> Mapping[str, Float[Tensor, "batch pos"]]:
    """Return the activations of units in the model's own run; at padding 0.

    A number is kept for every unit and position.
    """
    chosen = {graph.writer_index[name] for name in names}
    blocks = [block for block in graph.blocks if block.units is not None]
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad():
        for some, real in in_chunks(texts.tokens, texts.real):
            run = Activations(model, some.to(model.device), real.to(model.device))
            for block in blocks:
                wanted = [i for i, writer in enumerate(block.writers) if writer in chosen]
                if not wanted:
                    continue
                values = unit_block(model, block).parts(run.given(block), wanted).activations
                values = values.masked_fill(~real.to(values.device)[..., None], 0)
                for i, each in zip(wanted, values.movedim(-1, 0).cpu(), strict=True):
                    found[graph.writers[block.writers[i]].name].append(each)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _use(
    name: str,
    effect: float | None,
    values: Float[Tensor, "batch pos"],
    texts: Texts,
    n_shown: int,
    *,
    least: float,
) -> UnitUse:
    """Describe a unit that is active from a share `least` of its largest size on."""
    sizes = values.abs()
    sizes = sizes.masked_fill(sizes < least * sizes.max(), 0)
    frequency = float((sizes > 0).sum() / texts.real.sum())
    tokens = active_tokens(sizes, values, texts, n_shown)
    return UnitUse(name, effect, frequency, tokens, contexts_of(sizes, values, texts, n_shown))
