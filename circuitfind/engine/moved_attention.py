"""The attention of heads some of whose moves are cut, beside the runs between which they are."""

from collections.abc import Sequence

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
    """

    def __init__(self, runs: Runs, places: Places) -> None:
        self._runs, self._places = runs, places
        self._carried: dict[int, Ports] = {}

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
        if layer not in self._carried:
            stage = self._runs.graph.attention[layer].stage
            self._carried[layer] = ports_of_heads(model, layer, self._runs.carried[stage])
        carried = Ports(*(each[list(heads)] for each in self._carried[layer]))
        rows = MixedRows(model, layer, heads, self._places.of, real)
        return rows.attend(live, carried, kept)
