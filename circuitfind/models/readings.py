"""How a component reads the residual stream: its norm and its input weights.

    a linear map of the stream  ->  times a factor for each position  ->  plus a constant

The factor is what a norm divides by; it alone depends on the stream as a whole. So whoever knows
the linear map of two streams knows that of their sum, and the linear map of what a head writes is
one of the few numbers that it mixes: the product of its output weights with the reader's weights
(Elhage et al. 2021 call that virtual weights). A search that changes one head of twelve multiplies
a twelfth of the numbers that way.

That a model's modules do just this is a guess, so each reading is compared with what the model
does, on random streams (`reading_of`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.models.narrow import linear
from circuitfind.models.norms import LinearNorm, Normed

_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Largest distance from what the model does, relative to its norm. In a float64 model, norms that
compute in float32 miss it and are left to the model."""


class AffineMap(NamedTuple):
    """A linear map and a bias, such as a normed stream goes through.

    Attributes:
        weight: Each column gives one output; maybe in half precision (`narrow.py`).
        bias: Added to the outputs, or None.
    """

    weight: Float[Tensor, "d_model width"]
    bias: Float[Tensor, " width"] | None

    def __call__(self, values: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any width"]:
        """Return the outputs for some values."""
        return linear(values, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Reading:
    """How an input of a component reads: a query, a key, a value, or an MLP's pre-activations.

    Attributes:
        norm: The norm of the stream.
        weights: The maps that the normed stream goes through, with their outputs side by side;
            maybe in half precision (`narrow.py`).
        constant: Their outputs for a stream of zeros.
    """

    norm: LinearNorm
    weights: tuple[Float[Tensor, "d_model _"], ...]
    constant: Float[Tensor, " width"]

    @property
    def width(self) -> int:
        """Width of the linear map's output at a position."""
        return len(self.constant)

    @property
    def folded(self) -> Float[Tensor, "d_model width"]:
        """The linear map, times the norm's gain; of a stream that need not be centred."""
        gain = self.norm.gain[:, None]
        scaled = [weight * gain for weight in self.weights]
        found = scaled[0] if len(scaled) == 1 else torch.cat(scaled, dim=1)
        return found.sub_(found.mean(0)) if self.norm.centred else found

    def linear(self, centred: Float[Tensor, "*_ d_model"]) -> Float[Tensor, "*_ width"]:
        """Return the linear map of a centred stream, or of a part of one."""
        normed = centred * self.norm.gain
        products = [normed @ weight.to(normed.dtype) for weight in self.weights]
        return products[0] if len(products) == 1 else torch.cat(products, dim=-1)

    def read(
        self, product: Float[Tensor, "*_ width"], factor: Float[Tensor, "*_ 1"]
    ) -> Float[Tensor, "*_ width"]:
        """Return the outputs of the maps, given a stream's linear map and factor."""
        return torch.addcmul(self.constant, product, factor)

    def pulled(
        self,
        arrived: Float[Tensor, "*any width"],
        normed: Normed,
    ) -> Float[Tensor, "*any d_model"]:
        """Return the gradient at a stream, given that at the outputs of the maps.

        Args:
            arrived: The gradient at the outputs.
            normed: The stream, as the norm takes it apart.
        """
        widths = [weight.shape[1] for weight in self.weights]
        parts = (arrived * normed.factor).split(widths, dim=-1)
        products = (
            part @ weight.T.to(part.dtype) for part, weight in zip(parts, self.weights, strict=True)
        )
        product = reduce(torch.Tensor.add_, products)
        along = self.norm.along(product, normed.centred * self.norm.gain, normed)
        return self.norm.pulled_(product, [(normed.centred, along)])

    def of(self, stream: Float[Tensor, "*_ d_model"]) -> Float[Tensor, "*_ width"]:
        """Return the outputs of the maps for a stream."""
        centred, factor = self.norm.apart(stream)
        return self.read(self.linear(centred), factor)


def reading_of(
    norm: LinearNorm, maps: Sequence[AffineMap], read: Callable[[Tensor], Tensor]
) -> Reading | None:
    """Return how a component reads, or None where the model reads otherwise.

    Args:
        norm: The norm of the stream.
        maps: The maps that the normed stream goes through.
        read: What the model reads from a stream.
    """
    constants = [each(norm.bias) for each in maps]
    reading = Reading(norm, tuple(weight for weight, _ in maps), torch.cat(constants))
    return reading if does_the_same(reading.of, read, norm.gain) else None


def does_the_same(
    guess: Callable[[Tensor], Tensor],
    truth: Callable[[Tensor], Tensor],
    like: Float[Tensor, " d_model"],
) -> bool:
    """Return whether a guess equals what the model does, on random streams.

    Args:
        guess: What is believed of the model, which may fail on any stream.
        truth: What the model does.
        like: A vector of the streams' width, type and device.
    """
    generator = torch.Generator().manual_seed(0)
    # Not centred, and of all sizes, so that every part of a norm shows.
    probe = 1 + 3 * torch.randn(2, 3, len(like), generator=generator, dtype=like.dtype)
    probe *= torch.tensor([1, 1e-2, 1e-4], dtype=like.dtype)[:, None]
    probe = probe.to(like.device)
    expected = truth(probe)
    try:
        found = guess(probe)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        # What was taken for the parts of a module are not all of its parts.
        return False
    return bool((found - expected).norm() <= _TOLERANCE[like.dtype] * expected.norm())
