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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import ModelError
from circuitfind.models.narrow import linear
from circuitfind.models.slopes import with_slope_of

_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Largest distance from what the model does, relative to its norm. In a float64 model, norms that
compute in float32 miss it and are left to the model."""

_SAME_NORM = 1e-4
"""The same for a norm whose scale is frozen; it may compute in float32 in a float64 model."""

_TINY = 1e-4
"""Size of streams that show what a norm adds to their mean square."""


class Normed(NamedTuple):
    """A stream as a norm takes it apart.

    Attributes:
        centred: The stream minus its mean, or the stream itself.
        factor: What the norm multiplies each position of that by.
    """

    centred: Float[Tensor, "*_ d_model"]
    factor: Float[Tensor, "*_ 1"]


class LinearNorm(NamedTuple):
    """A layer norm or an RMS norm.

    Attributes:
        centred: Whether the mean is taken off first, as a layer norm does.
        gain: Factor of each dimension.
        bias: Added after all.
        eps: Added to the mean square.
        frozen: Whether gradients take what the norm divides by for a constant.
    """

    centred: bool
    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    eps: float
    frozen: bool = False

    def centre(self, stream: Float[Tensor, "*_ d_model"]) -> Float[Tensor, "*_ d_model"]:
        """Return a stream minus its mean, if the norm subtracts it."""
        return stream - stream.mean(-1, keepdim=True) if self.centred else stream

    def factor(self, centred: Float[Tensor, "*_ d_model"]) -> Float[Tensor, "*_ 1"]:
        """Return what the norm multiplies each position of a stream by, given its centred form."""
        # Several times as fast as the variance or a layer norm of PyTorch.
        size = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        factor = torch.rsqrt(size.square() / centred.shape[-1] + self.eps)
        return factor.detach() if self.frozen else factor

    def apart(self, stream: Float[Tensor, "*_ d_model"]) -> Normed:
        """Return a stream as this norm takes it apart."""
        centred = self.centre(stream)
        return Normed(centred, self.factor(centred))

    def along(
        self,
        arrived: Float[Tensor, "*any width"],
        mapped: Float[Tensor, "*any width"],
        normed: Normed,
    ) -> Float[Tensor, "*any 1"]:
        """Return the gradient that reaches a stream by the norm's factor.

        Args:
            arrived: The gradient at the outputs of a linear map of the normed stream.
            mapped: The outputs, without what they are for a stream of zeros.
            normed: The stream, as the norm takes it apart.

        Returns:
            Times the centred stream, it is that gradient.
        """
        if self.frozen:
            return torch.zeros_like(arrived[..., :1])
        shrinks = (arrived * mapped).sum(-1, keepdim=True) * normed.factor.square()
        return shrinks.div_(-normed.centred.shape[-1])

    def pulled_(
        self,
        product: Float[Tensor, "*any d_model"],
        along: Iterable[tuple[Float[Tensor, "*_ d_model"], Float[Tensor, "*any 1"]]],
    ) -> Float[Tensor, "*any d_model"]:
        """Pull a gradient at the normed stream back to the stream, in place.

        The stream counts twice: by what is mapped, and by what the norm divides it by.

        Args:
            product: The gradient at the normed stream, times the norm's factor.
            along: The stream, centred, and what `along` returned; of several streams, if the
                product is the sum of theirs.
        """
        product.mul_(self.gain)
        for centred, share in along:
            product.addcmul_(centred, share)
        return product.sub_(product.mean(-1, keepdim=True)) if self.centred else product

    def normed(
        self,
        stream: Float[Tensor, "*any d_model"],
        scale_of: Float[Tensor, "*any d_model"] | None = None,
    ) -> Float[Tensor, "*any d_model"]:
        """Return the norm of a stream, with the scale of another stream if that is given."""
        centred = self.centre(stream)
        factor = self.factor(centred if scale_of is None else self.centre(scale_of))
        return centred * factor * self.gain + self.bias


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


def linear_norm(norm: Callable[[Tensor], Tensor], like: Float[Tensor, " d_model"]) -> LinearNorm:
    """Read off what a norm does to streams of a type; whether it is a norm at all is not asked.

    Modules name what they add to the mean square differently, or do not, so it is measured.
    """
    bias, ones = norm(torch.zeros_like(like)), torch.ones_like(like)
    # No entry is near zero, with its mean taken off or not.
    probe = ones + torch.arange(len(like), device=like.device) % 2
    probe[::2] *= -1
    normed = norm(probe) - bias
    # Little is left of equal numbers once their mean is taken off.
    centred = bool((norm(ones) - bias).norm() < 0.1 * normed.norm())
    inner = probe - probe.mean() if centred else probe
    tiny = norm(_TINY * inner) - bias
    eps = _eps(inner.square().mean(), (normed.norm() / tiny.norm()).square())
    unscaled = LinearNorm(centred, ones, bias, eps)
    gain = normed / (inner * unscaled.factor(inner))
    return unscaled._replace(gain=gain, frozen=isinstance(norm, FrozenNorm))


class FrozenNorm:
    """A norm, to the last bit, whose gradients take what it divides by for a constant.

    Args:
        norm: The norm.
    """

    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        self._norm = norm

    def __call__(self, stream: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        def with_its_scale() -> Tensor:
            return normed_as(self._norm, stream, stream.detach())

        return with_slope_of(self._norm(stream), with_its_scale)


def _eps(square: Float[Tensor, ""], ratio: Float[Tensor, ""]) -> float:
    """Return what a norm adds to the mean square.

    Args:
        square: The mean square of a stream.
        ratio: Of the mean squares of that stream, normed, and of _TINY times the stream, normed:
            (_TINY² square + eps) / (_TINY² (square + eps)).
    """
    eps = _TINY**2 * square * (ratio - 1) / (1 - _TINY**2 * ratio)
    # Where it is next to nothing, rounding can make it less.
    return float(eps.clamp(min=0))


def normed_as(
    norm: Callable[[Tensor], Tensor],
    stream: Float[Tensor, "*any d_model"],
    scale_of: Float[Tensor, "*any d_model"] | None,
) -> Float[Tensor, "*any d_model"]:
    """Return the norm of a stream, with the scale of another stream if that is given.

    Raises:
        ModelError: It is neither a layer norm nor an RMS norm, so it has no scale.
    """
    if scale_of is None:
        return norm(stream)
    found = linear_norm(norm, torch.zeros_like(stream[(0,) * (stream.ndim - 1)]))
    expected = norm(scale_of)
    if not (found.normed(scale_of, scale_of) - expected).norm() <= _SAME_NORM * expected.norm():
        raise ModelError(
            f"the norm {type(norm).__name__} is neither a layer norm nor an RMS norm, so its scale "
            "cannot be frozen; choose norm exact, or leave out the rule 'norms'"
        )
    return found.normed(stream, scale_of)


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
