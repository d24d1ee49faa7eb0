"""The tensors of a file, such as a dictionary's: each asked for by name and axes, and checked.

Files come from anywhere. A tensor that is missing, has another shape, does not hold finite numbers
or is not used is refused by name, so that no dictionary is ever half read.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import quoted

_MOST_NAMES = 3
"""Largest number of tensors that a message names."""

MOST_LATENTS = 10**8
"""Largest number of latents, and of every other size."""


class Tensors:
    """The tensors of one file.

    Args:
        found: What the file holds.
        sizes: The sizes that are known by now, by axis. A size that is not known is that of the
            first tensor that has such an axis.
    """

    def __init__(self, found: Mapping[str, Tensor], **sizes: int) -> None:
        self._left, self.sizes = dict(found), sizes
        for axis, size in sizes.items():
            if not 1 <= size <= MOST_LATENTS:
                raise ValueError(f"its {axis} must be from 1 to {MOST_LATENTS:,}, not {size:,}")

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, *axes: str) -> Float[Tensor, "..."]:
        """Return a tensor in float32, or in float64 if it is.

        Raises:
            ValueError: It is missing, has another shape or type, or holds numbers that are not
                finite.
        """
        if name not in self._left:
            raise ValueError(f"the tensor {name} is missing")
        tensor = self._left.pop(name)
        shape = tuple(tensor.shape)
        if len(shape) == len(axes):
            for axis, size in zip(axes, shape, strict=True):
                self.sizes.setdefault(axis, size)
        wanted = tuple(self.sizes.get(axis, axis) for axis in axes)
        if shape != wanted:
            named = f"[{', '.join(axes)}]"
            raise ValueError(f"{name} has the shape {list(shape)}, not {named} = {list(wanted)}")
        if 0 in shape:
            raise ValueError(f"{name} is empty: its shape is {list(shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} holds {tensor.dtype} and must hold floating-point numbers")
        wide = tensor if tensor.dtype == torch.float64 else tensor.float()
        if not bool(wide.isfinite().all()):
            raise ValueError(f"{name} holds numbers that are not finite")
        return wide

    def take_ones(self, name: str) -> None:
        """Take a factor that must be 1 everywhere.

        Raises:
            ValueError: It is not.
        """
        if not bool((self._left.pop(name) == 1).all()):
            raise ValueError(
                f"it scales its latents by {name} after training, which cannot be used; fold it "
                "into the decoder"
            )

    def done(self) -> None:
        """Refuse tensors that were not asked for.

        Raises:
            ValueError: The message names them.
        """
        if not self._left:
            return
        names = sorted(self._left)
        some = ", ".join(quoted(name, 60)[1:-1] for name in names[:_MOST_NAMES])
        rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        raise ValueError(f"it holds {some}{rest}, which does not belong there")
