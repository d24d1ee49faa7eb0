"""Attention with a mixed row, in the model's own module: only its softmax is looked into.

The module is run once for each choice of queries and keys (live, or as if every edge into them were
cut) to see what it takes the softmax of. Of these scores each row is put together, column by
column, and the module is run again with the softmax of that in place of its own: once with the live
values and the share of the pattern that keeps them, once with the others.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Z = Tensor
"""What the output projection receives, [batch pos all_heads*d_head]."""

Run = Callable[[str, str, str], Z]
"""Runs the module with its queries, keys and values, each `live` or `cut`."""

_SOFTMAX = (torch.softmax, torch.nn.functional.softmax, Tensor.softmax)


class _Softmax(TorchFunctionMode):
    """Notes what softmax is taken of, and may give something else in its place."""

    def __init__(self, instead: Tensor | None = None) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self._instead = instead

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in _SOFTMAX:
            return func(*args, **(kwargs or {}))
        self.seen.append(args[0])
        return args[0].double().softmax(-1) if self._instead is None else self._instead


def mixed(run: Run, kept: Tensor, place_of: Tensor) -> Z:
    """Return what the heads of a layer mix.

    Args:
        run: Runs the module.
        kept: Which moves are kept [head port source destination], the ports q, k, v.
        place_of: The place of each position [batch pos].
    """

    def at(port: int) -> Tensor:
        """Return what is kept of a port, [batch head row column]."""
        return torch.stack([kept[:, port][:, row][:, :, row].transpose(1, 2) for row in place_of])

    def scores(query: str, key: str) -> Tensor:
        with _Softmax() as softmax:
            run(query, key, "live")
        (seen,) = softmax.seen
        return seen

    by_query = {
        query: torch.where(at(1), scores(query, "live"), scores(query, "cut"))
        for query in ("live", "cut")
    }
    pattern = torch.where(at(0), by_query["live"], by_query["cut"]).softmax(-1)
    total = 0
    for value, share in (("live", at(2)), ("cut", ~at(2))):
        with _Softmax(pattern * share):
            total = total + run("live", "live", value)
    assert isinstance(total, Tensor)
    return total
