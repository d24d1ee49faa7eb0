"""Does the decomposition reproduce the model? Asked of every model before anything else.

The parts are run one after the other with nothing patched and compared with the model's own
forward pass, taken before any library wrapped it. This is the check that catches errors: with
every edge cut, a wrong attention goes unnoticed, because nothing that it writes is used.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import SelfCheckError
from circuitfind.graph import Block
from circuitfind.models.base import ResidualModel, heads_summed
from circuitfind.models.forward import Added, Inputs, Run, Stream, mix

TOLERANCE = {
    torch.float64: 1e-5,
    torch.float32: 1e-4,
    torch.bfloat16: 1e-4,
    torch.float16: 1e-4,
}
"""Largest difference allowed, relative to the largest logit, by type of the weights.

Half-precision weights are computed with in float32, so nothing more is allowed for them. Hugging
Face takes norms and softmaxes in float32 even in float64 models; hence the generous figure there.
"""

_CHECKED_POSITIONS = 12


@dataclass(frozen=True)
class SelfCheck:
    """Difference between the decomposition and the model.

    Attributes:
        difference: Largest absolute difference of a logit.
        scale: Largest absolute logit.
        tolerance: Largest difference allowed, relative to the scale.
    """

    difference: float
    scale: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance * max(self.scale, 1e-12)


def component_logits(
    model: ResidualModel,
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Run a model part by part, nothing patched."""
    return model.logits(Run(model, real).run(model.embed(tokens).joint))


class _HeadByHead(Run):
    """A run in which every head writes by itself and MLPs run as a whole, as searches ask them to.

    Any other run takes what is faster: all heads of a block together, and the steps of an MLP.
    """

    def added(self, block: Block, stream: Stream) -> Added:
        if block.kind == "mlp":
            return self.model.mlp(block.layer, stream)
        return super().added(block, stream)

    def rest(self, inputs: Inputs, block: Block) -> Added:
        mixed = mix(self.model, block, inputs, self.real)
        return heads_summed(self.model, block.layer, mixed)


def random_tokens(n_tokens: int, n_positions: int) -> Int[Tensor, "batch pos"]:
    """Return the tokens on which models are checked when they are loaded."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(n_tokens, (2, min(_CHECKED_POSITIONS, n_positions)), generator=generator)


def self_check(
    model: ResidualModel,
    tokens: Int[Tensor, "batch pos"],
    expected: Float[Tensor, "batch pos d_vocab"],
) -> SelfCheck:
    """Compare what the parts make of some tokens with what the whole should."""
    with torch.no_grad():
        final = _HeadByHead(model).run(model.embed(tokens).joint)
        found = torch.stack([component_logits(model, tokens), model.logits(final)])
        difference = (found - expected).abs().max()
    scale = float(expected.abs().max())
    return SelfCheck(float(difference), scale, TOLERANCE[model.weights_dtype])


def require_faithful(
    model: ResidualModel,
    tokens: Int[Tensor, "batch pos"],
    expected: Float[Tensor, "batch pos d_vocab"],
) -> SelfCheck:
    """Refuse a model that its parts do not reproduce.

    Raises:
        SelfCheckError: The difference exceeds the tolerance; the message states both.
    """
    check = self_check(model, tokens, expected)
    if not check.passed:
        raise SelfCheckError(
            f"{model.name!r} cannot be decomposed exactly: the logits of its parts differ from "
            f"its own by up to {check.difference:.3g} (allowed: {check.tolerance:.0e} of the "
            f"largest logit, {check.scale:.3g}); its architecture is not supported"
        )
    return check
