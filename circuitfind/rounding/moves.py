"""Operations that move numbers and change none: radii are moved in the same way."""

from typing import Any

from torch import Tensor

from circuitfind.rounding.numbers import unbounded

STRUCTURAL = frozenset(
    """
    _reshape_alias _unsafe_view alias cat clone constant_pad_nd copy_ detach diagonal embedding
    expand fill_ flip gather index index_put index_put_ index_select lift_fresh masked_fill
    masked_fill_ permute repeat roll select select_scatter slice slice_scatter split
    split_with_sizes squeeze stack t transpose tril triu unbind unfold unsqueeze view where zero_
    """.split()  # noqa: SIM905  (one a line is hard to read)
)
"""By the name of the operation; those that end with `_` write into their first argument."""

_VALUES = {"masked_fill": 2, "masked_fill_": 2, "constant_pad_nd": 2, "fill_": 1}
"""Which of their arguments are numbers to be written, which are exact."""

FACTORIES = frozenset(
    """
    arange empty empty_like empty_strided eye full full_like new_empty new_empty_strided new_full
    new_ones new_zeros ones ones_like scalar_tensor zeros zeros_like
    """.split()  # noqa: SIM905  (one a line is hard to read)
)
"""Operations that make tensors of numbers that are given."""


def of_radii(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what an operation that moves numbers is given to move radii, for numbers radii.

    Raises:
        Unproved: It adds numbers too.
    """
    if name in ("index_put", "index_put_") and any(args[3:]):
        raise unbounded(f"{name} that adds")
    found = list(args)
    places = [1, 2] if name == "where" else [_VALUES[name]] if name in _VALUES else []
    for place in places:
        if place < len(found) and not isinstance(found[place], Tensor):
            found[place] = 0.0
    return tuple(found)
