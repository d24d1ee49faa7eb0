"""Operations that move elements and change none: radii are moved in the same way."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from circuitfind.rounding.numbers import rounded_off, unbounded

STRUCTURAL = frozenset(
    """
    _reshape_alias _unsafe_view alias cat clone constant_pad_nd copy_ detach diagonal embedding
    expand fill_ flip gather index index_put index_put_ index_select lift_fresh masked_fill
    masked_fill_ permute repeat roll select select_scatter slice slice_scatter split
    split_with_sizes squeeze stack t transpose tril triu unbind unfold unsqueeze view where zero_
    """.split()  # noqa: SIM905  (one a line is hard to read)
)
"""By the name of the operation; those that end with `_` write into their first argument."""

FACTORIES = frozenset(
    """
    arange empty empty_like empty_strided eye full full_like new_empty new_empty_strided new_full
    new_ones new_zeros ones ones_like scalar_tensor zeros zeros_like
    """.split()  # noqa: SIM905  (one a line is hard to read)
)
"""Operations that make tensors of given values."""

_VALUES = {
    "masked_fill": (2,), "masked_fill_": (2,), "constant_pad_nd": (2,), "fill_": (1,),
    "where": (1, 2), "full": (1,), "full_like": (1,), "new_full": (2,), "scalar_tensor": (0,),
}  # fmt: skip
"""Which of their arguments are values to be written, where these may be scalars."""

_PLACES = {
    "embedding": 1, "gather": 2, "index": 1, "index_put": 1, "index_put_": 1, "index_select": 2,
    "masked_fill": 1, "masked_fill_": 1, "where": 0,
}  # fmt: skip
"""Which of their arguments say which elements are meant."""


def radii_to_move(
    name: str, args: Sequence[Any], dtype: torch.dtype, of: Callable[[Any], Any]
) -> list[Any]:
    """Return the arguments with which to move radii: radii in the place of elements.

    Args:
        name: The operation.
        args: Its arguments.
        dtype: The number type of its result, to which what it moves is rounded.
        of: Returns the radii of a tensor.

    Raises:
        Unproved: It adds elements too.
    """
    if name in ("index_put", "index_put_") and any(args[3:]):
        raise unbounded(f"{name} that adds")
    found = [each if _PLACES.get(name) == place else of(each) for place, each in enumerate(args)]
    for place in _VALUES.get(name, ()):
        if place < len(found) and not isinstance(found[place], Tensor):
            found[place] = float(_off(found[place], dtype))
    return found


def radii_of_made(name: str, args: Sequence[Any], found: Tensor) -> Tensor:
    """Return how far the elements that an operation makes are from those that were asked for.

    Raises:
        Unproved: That is not known.
    """
    if name == "arange" and any(each != int(each) for each in args):
        raise unbounded("arange of fractions")
    off = rounding_of_scalars(name, args, found.dtype)
    return torch.full_like(found, off, dtype=torch.float64)


def is_rounded(name: str, args: Sequence[Any], dtype: torch.dtype) -> bool:
    """Return whether an operation may round what it writes into a tensor of a number type."""
    values = [each for place, each in enumerate(args) if _PLACES.get(name) != place]
    is_wide = any(
        isinstance(each, Tensor) and each.is_floating_point() and each.dtype != dtype
        for each in tree_leaves(values)
    )
    return is_wide or rounding_of_scalars(name, args, dtype) > 0


def rounding_of_scalars(name: str, args: Sequence[Any], dtype: torch.dtype) -> float:
    """Return how far scalars are from what is written at most, in a tensor of a number type."""
    places = [place for place in _VALUES.get(name, ()) if place < len(args)]
    scalars = [args[place] for place in places if not isinstance(args[place], Tensor)]
    return max((float(_off(each, dtype)) for each in scalars), default=0.0)


def _off(value: Any, dtype: torch.dtype) -> Tensor:
    return rounded_off(torch.tensor(value, dtype=torch.float64), dtype)
