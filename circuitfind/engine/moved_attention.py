"""The attention of heads some of whose moves are cut, beside the runs between which they are."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuitfind.engine.moves import Kept, MixedRows, Ports, ports_of_heads
from circuitfind.engine.replacement import Runs
from circuitfind.places import Places


class MovedAttention:
    """The attention of heads some of whose moves are cut, on some prompts.

    Args:
        runs: The runs between which edges are cut.
        places: The places of their prompts.
        keep: Keeps what heads read where all edges are cut elsewhere, as `Runs.kept_by` does.
    """

    def __init__(
        self,
        runs: Runs,
        places: Places,
        keep: Callable[[dict[Any, Tensor]], dict[Any, Tensor]] = dict,
    ) -> None:
        self._runs, self._places, self._keep = runs, places, keep

    @cached_property
    def _carried(self) -> dict[int, Ports]:
        """What heads read where all edges are cut, by layer."""
        model, attention = self._runs.model, self._runs.graph.attention
        entering = self._runs.replaced.entering(self._runs.final)
        ports = {
            (layer, port): values
            for layer, block in attention.items()
            for port, values in zip(
                Ports._fields, ports_of_heads(model, layer, entering[block.stage]), strict=True
            )
        }
        kept = self._keep(ports)
        return {
            layer: Ports(**{port: kept[layer, port] for port in Ports._fields})
            for layer in attention
        }

    def attend(
        self, layer: int, heads: Sequence[int], live: Ports, kept: Kept
    ) -> Float[Tensor, "head most_batch last d_head"]:
        """Return the z of some heads.

        Args:
            layer: The layer.
            heads: The heads.
            live: What they read.
            kept: Which of their moves are kept; in all candidates, or in each.
        """
        model, real = self._runs.model, self._runs.real
        carried = Ports(*(each[list(heads)] for each in self._carried[layer]))
        rows = MixedRows(model, layer, heads, self._places.of, real)
        return rows.attend(live, carried, kept)
