"""Is the engine right on this very model and these very prompts? Asked before every search.

The full graph must give the model's own logits on the clean prompts; and where the empty graph is a
run of the model, as under resample ablation on the corrupted prompts, it must give that run's. What
is compared with is the model's own forward pass, in which this package has no part.

The run in which every edge is kept is compared on all prompts. On the first few, each limit is also
approached from the other one: the full graph is built up from the replaced run, component by
component, and the empty graph is the clean run with every edge cut.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import SelfCheckError
from circuitfind.models.base import ResidualModel
from circuitfind.models.self_check import TOLERANCE
from circuitfind.prompts import PromptPairs

_FEW = 4
"""On how many pairs of prompts limits are built up: what components do on one, they do on all."""

_LOGITS = 1 << 24
"""How many of the model's own logits, at all positions, are held at once; 64 MiB in float32."""


@dataclass(frozen=True)
class LimitCheck:
    """How far the two limits are from the model, relative to its largest logit.

    Attributes:
        full: Difference of the full graph from the model on the clean prompts.
        empty: Difference of the empty graph from the model's run that it is; None under ablations
            that no run of the model can show.
    """

    full: float
    empty: float | None


def check_limits(engine: IncrementalEngine) -> LimitCheck:
    """Hold the engine to the model.

    Raises:
        SelfCheckError: A limit is off by more than the tolerance of the model's type.
    """
    problem, prompts = engine.problem, engine.problem.prompts
    few, everything = _FEW * prompts.n_runs, engine.graph.edge_mask
    own = own_logits(problem.model, prompts, prompts.clean)
    full = [
        _checked(engine, "full graph", final, own)
        for final in (engine.clean_final, engine.recomputed(everything, "replaced", few))
    ]
    empty = None
    if (tokens := problem.ablation.empty_graph(prompts)) is not None:
        final = engine.recomputed(torch.zeros_like(everything), "clean", few)
        some = slice(len(final))
        own = own_logits(problem.model, prompts.rows(some), tokens[some])
        empty = _checked(engine, "empty graph", final, own)
    return LimitCheck(max(full), empty)


def _checked(
    engine: IncrementalEngine,
    name: str,
    final: Float[Tensor, "some pos d_model"],
    own: Float[Tensor, "batch step d_vocab"],
) -> float:
    """Return how far the logits of a limit are from the model's own, on the first prompts or all.

    Raises:
        SelfCheckError: That is more than the tolerance of the model's type.
    """
    model, some = engine.problem.model, slice(len(final))
    prompts = engine.problem.prompts.rows(some)
    with torch.no_grad():
        real = prompts.step_is_real
        expected, found = own[some][real], model.logits(prompts.at_steps(final))[real]
        difference = relative_difference(found, expected)
    tolerance = TOLERANCE[model.weights_dtype]
    if not difference <= tolerance:
        raise SelfCheckError(
            f"the {name} does not reproduce {model.name!r}: its logits differ by "
            f"{difference:.2g} of the largest one (allowed: {tolerance:.0e}); "
            "no circuit of this model can be trusted"
        )
    return difference


def relative_difference(found: Float[Tensor, "*_"], expected: Float[Tensor, "*_"]) -> float:
    """Return the largest difference as a share of the largest expected value.

    A program may say 0 everywhere; a difference of 0 is none then either.
    """
    difference = float((found - expected).abs().max())
    return difference / float(expected.abs().max()) if difference else 0.0


def own_logits(
    model: ResidualModel, prompts: PromptPairs, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch step d_vocab"]:
    """Return the model's own logits where the metric reads, computed some prompts at a time.

    Args:
        model: The model.
        prompts: The prompts, of which `tokens` are the clean or the corrupted ones.
        tokens: What the model reads.
    """
    size = max(1, _LOGITS // (tokens.shape[1] * model.shape.d_vocab))
    n_positions = tokens.shape[1] - int(prompts.steps[prompts.step_is_real].min())
    parts = [slice(first, first + size) for first in range(0, len(tokens), size)]
    with torch.no_grad():
        return torch.cat(
            [
                prompts.rows(part).at_steps(
                    model.own_last_logits(tokens[part], prompts.real[part], n_positions)
                )
                for part in parts
            ]
        )
