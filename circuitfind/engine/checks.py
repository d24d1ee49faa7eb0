"""Is the engine right on this very model and these very prompts? Asked before every search.

The full graph must give the model's own logits on the clean prompts; and where the empty graph is a
run of the model, as under resample ablation on the corrupted prompts, it must give that run's. Each
limit is approached from the other one: the full graph is built up from the replaced run, component
by component, and the empty graph is the clean run with every edge cut. So neither is the run that
it should come to, and what is compared with is the model's own forward pass, in which this package
has no part.
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
    prompts = engine.problem.prompts
    everything = engine.graph.edge_mask
    full = _difference(engine, engine.recomputed(everything, "replaced"), prompts.clean)
    empty = None
    if (tokens := engine.problem.ablation.empty_graph(prompts)) is not None:
        final = engine.recomputed(torch.zeros_like(everything), "clean")
        empty = _difference(engine, final, tokens)
    model = engine.problem.model
    tolerance = TOLERANCE[model.weights_dtype]
    for name, difference in (("full graph", full), ("empty graph", empty)):
        if difference is not None and not difference <= tolerance:
            raise SelfCheckError(
                f"the {name} does not reproduce {model.name!r}: its logits differ by "
                f"{difference:.2g} of the largest one (allowed: {tolerance:.0e}); "
                "no circuit of this model can be trusted"
            )
    return LimitCheck(full, empty)


def _difference(
    engine: IncrementalEngine,
    final: Float[Tensor, "batch pos d_model"],
    tokens: Int[Tensor, "batch pos"],
) -> float:
    model, prompts = engine.problem.model, engine.problem.prompts
    with torch.no_grad():
        expected = own_logits(model, prompts, tokens)
        found = model.logits(prompts.at_steps(final))
        real = prompts.step_is_real
        difference = (found - expected)[real].abs().max()
        # A program may say 0 everywhere; a difference of 0 is none then either.
        return float(difference / expected[real].abs().max()) if difference else 0.0


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
    return torch.cat(
        [
            prompts.rows(part).at_steps(
                model.own_last_logits(tokens[part], prompts.real[part], n_positions)
            )
            for part in parts
        ]
    )
