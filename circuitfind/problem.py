"""A problem: all that a method sees of the world."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from circuitfind.ablations import ABLATIONS, Ablation
from circuitfind.circuit import Circuit, as_circuit
from circuitfind.errors import (
    MethodError,
    MetricError,
    PromptError,
    quoted,
    require_kind,
    shortened,
)
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph
from circuitfind.metrics import Metric, check_metric
from circuitfind.models.assumptions import require_prompts_alone
from circuitfind.models.base import ResidualModel
from circuitfind.models.units import unit_block
from circuitfind.places import Places
from circuitfind.prompts import NO_TOKEN, PromptPairs


@dataclass(frozen=True)
class Problem:
    """Which edges of a model matter for some prompts, by which metric, against which ablation?

    Attributes:
        model: The model.
        graph: The edges among which to search.
        prompts: Clean and corrupted prompts, on the model's device.
        metric: How well the model does.
        ablation: What a cut edge carries.
        default_metric: The metric that was taken because none was chosen, such as the task's own;
            None where one was chosen.
    """

    model: ResidualModel
    graph: Graph
    prompts: PromptPairs
    metric: Metric
    ablation: Ablation
    default_metric: Metric | None = None

    def __repr__(self) -> str:
        name, metric = (shortened(each.name)[:60] for each in (self.model, self.metric))
        return (
            f"<Problem: {metric} of {name} on {self.prompts.n_prompts} pairs of prompts, "
            f"{self.graph.n_edges} edges, {self.ablation.name} ablation>"
        )

    def __post_init__(self) -> None:
        parts = ("model", "graph", "prompts", "metric", "ablation")
        require_parts(**{name: getattr(self, name) for name in parts})
        if self.graph.shape != self.model.shape:
            raise MethodError(
                f"the graph belongs to a model of another shape than {self.model.name!r}; "
                "build it with heads_and_mlps(model.shape)"
            )
        self._require_places()
        for block in self.graph.blocks:
            if block.units is not None:
                unit_block(self.model, block)
        self.ablation.check(self.prompts)
        length = self.prompts.clean.shape[1]
        if length > self.model.n_positions:
            longest = self.prompts.source(int(self.prompts.lengths.argmax()))
            raise PromptError(
                f"the longest prompt has {length} tokens and {self.model.name!r} reads at most "
                f"{self.model.n_positions}; shorten {longest}"
            )
        if self.metric.direction is not None:
            raise MetricError(
                f"the metric {self.metric.name!r} has yet to be given a direction of the model's "
                "stream; use `make_problem`, or `engine.direction.with_direction`"
            )
        if self.prompts.sides is not None and not self.model.causal:
            raise PromptError(
                f"answers of several tokens are put behind their prompts, and {self.model.name!r} "
                "lets a position see what follows it; give answers of one token"
            )
        if self.prompts.alignment is not None and not self.model.causal:
            self.prompts.require_one_length("a model whose attention looks both ways")
        self._require_known_tokens()
        check_metric(self.metric, self.prompts)

    def _require_places(self) -> None:
        places = self.prompts.places
        here = () if places is None else places.names
        if self.graph.places and here != self.graph.places:
            raise MethodError(
                f"the graph tells the places {shortened(', '.join(self.graph.places))[:100]} apart "
                f"and the prompts have {shortened(', '.join(here))[:100] or 'none'}; give "
                "`graph.at_places(prompts.places.names)`"
            )
        if places is not None and places.of.shape != self.prompts.clean.shape:
            raise PromptError(
                f"places are given for positions of shape {tuple(places.of.shape)} and the prompts "
                f"have {tuple(self.prompts.clean.shape)}; give the place of each position"
            )
        if places is not None and self.graph.moves:
            self._require_moves(places)

    def _require_moves(self, places: Places) -> None:
        """Refuse moves of a model that has none to cut, and prompts with others."""
        others = set(places.moves(causal=self.model.causal)) - set(self.graph.moves)
        if others:
            source, target = (places.names[number] for number in min(others))
            raise PromptError(
                f"in these prompts {target} may attend to {source}, which is no edge of the graph; "
                "take prompts of the same kind"
            )
        length = self.prompts.clean.shape[1]
        shape, like = (1, 1, length, self.graph.shape.d_head), self.model
        probe = torch.zeros(shape, dtype=like.dtype, device=like.device)
        for layer in self.graph.attention:
            self.model.attention_scores(layer, [0], probe, probe, self.prompts.real[:1])

    @property
    def pruning_is_free(self) -> bool:
        """Whether dead ends can be removed without a change, as the empty graph is a run."""
        return self.ablation.pruning_is_free and self.prompts.alignment is None

    @property
    def places(self) -> Places | None:
        """The places that edges tell apart; None where an edge acts at all positions."""
        return self.prompts.places if self.graph.places else None

    @property
    def problem(self) -> "Problem":
        """Itself, so that a problem can stand wherever an engine or a finding of it can."""
        return self

    @property
    def metric_is_default(self) -> bool:
        """Whether nobody chose the metric, so that a command may measure another by default."""
        return self.metric is self.default_metric

    def _require_known_tokens(self) -> None:
        """Refuse numbers that would end in an error deep inside the model."""
        prompts, name = self.prompts, self.model.name
        runs = [run(prompts) for _, run in self.ablation.runs]
        for tokens in (prompts.clean, prompts.corrupted, *runs):
            if (found := _outside(tokens, 0, self.model.n_tokens)) is not None:
                raise PromptError(
                    f"{prompts.source(found[0])} holds the token {found[1]} and {name!r} knows "
                    f"{self.model.n_tokens} tokens, counted from 0; use its own tokenizer"
                )
        for tokens in (prompts.answers, prompts.wrong_answers):
            if (found := _outside(tokens, NO_TOKEN, self.model.shape.d_vocab)) is not None:
                raise PromptError(
                    f"{prompts.source(found[0])} has the answer {found[1]} and {name!r} gives "
                    f"logits for {self.model.shape.d_vocab} tokens, counted from 0; use its own "
                    "tokenizer"
                )


@runtime_checkable
class HasProblem(Protocol):
    """A problem, an engine of it, or what a search for its circuit found (`Found`)."""

    @property
    def problem(self) -> Problem: ...


def as_problem(asked: object) -> Problem:
    """Return the problem that is asked about.

    Raises:
        MethodError: It is neither a problem, nor an engine, nor what a search found.
    """
    if not isinstance(asked, HasProblem):
        raise MethodError(
            f"{quoted(type(asked).__name__)} is not a question; give a problem (`make_problem`), "
            "or what `discover` found"
        )
    return asked.problem


def circuit_of_question(asked: object, circuit: object = None) -> Circuit:
    """Return the circuit that is asked about: the given one, or else what a search found.

    Raises:
        CircuitfindError: There is none, or its file cannot be trusted.
    """
    found = getattr(asked, "circuit", None) if circuit is None else circuit
    if found is None:
        raise MethodError(
            "no circuit is given; give one after the problem, or what `discover` found in its place"
        )
    return as_circuit(found)


_PARTS: dict[str, tuple[type[Any], str]] = {
    "model": (ResidualModel, "a model; give what `load_model` returned"),
    "prompts": (PromptPairs, "prompts; give the name of a task, or `collate(pairs)`"),
    "metric": (Metric, "a metric; give one of `METRICS`, its name, or a `Metric` of your own"),
    "ablation": (Ablation, "an ablation; give its name, or an `Ablation` of your own"),
    "graph": (Graph, "a graph; give what `heads_and_mlps(model.shape)` returns"),
}


def require_parts(**parts: object) -> None:
    """Refuse parts of a problem, by the names of its fields, that are something else.

    Raises:
        MethodError: The message says what to give.
    """
    for name, given in parts.items():
        kind, wanted = _PARTS[name]
        require_kind(given, kind, wanted)


def _outside(tokens: Int[Tensor, "batch ..."], low: int, high: int) -> tuple[int, int] | None:
    """Return the first row that holds a number below `low` or from `high` on, and the number."""
    places = ((tokens < low) | (tokens >= high)).nonzero()
    if not len(places):
        return None
    return int(places[0, 0]), int(tokens[tuple(places[0])])


def assemble(
    model: ResidualModel,
    prompts: PromptPairs,
    metric: Metric,
    ablation: Ablation | str = "resample",
    *,
    graph: Graph | None = None,
    default_metric: Metric | None = None,
) -> Problem:
    """Put a problem together, with the prompts moved to the model's device.

    Raises:
        CircuitfindError: The parts do not fit one another; or prompts of different lengths cannot
            share a batch with this model.
    """
    if isinstance(ablation, str):
        ablation = ABLATIONS.find(ablation)
    require_parts(model=model, prompts=prompts)
    graph = heads_and_mlps(model.shape) if graph is None else graph
    problem = Problem(model, graph, prompts.to(model.device), metric, ablation, default_metric)
    require_prompts_alone(model, problem.prompts.clean, problem.prompts.real)
    return problem
