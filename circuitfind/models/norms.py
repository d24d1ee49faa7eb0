"""Layer norms and RMS norms as a few numbers, read off what a model's modules do.

    the stream, maybe minus its mean  ->  times a factor for each position  ->  gain and bias

The factor is what a norm divides by; it alone depends on the stream as a whole. It can be that of
another stream, and gradients can take it for a constant.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import ModelError
from circuitfind.models.slopes import with_slope_of

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

    def apart_(self, stream: Float[Tensor, "*_ d_model"]) -> Normed:
        """Return the same; the stream is centred in place."""
        if self.centred:
            stream.sub_(stream.mean(-1, keepdim=True))
        return Normed(stream, self.factor(stream))

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
