"""At which positions of the prompts the places are, for changes that act at some places only."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PlaceNumbers = tuple[int, ...]


class PlaceMasks:
    """Masks and numbers of the positions of places, among the last positions.

    Args:
        masks: At which positions each place is.
        dtype: Type of the streams.
    """

    def __init__(self, masks: Bool[Tensor, "place batch pos"], dtype: torch.dtype) -> None:
        self._masks, self._dtype = masks, dtype
        self._weights: dict[tuple[PlaceNumbers, int], Tensor] = {}
        self._rows: dict[tuple[PlaceNumbers, int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._masks)

    def weights(self, places: Sequence[int], span: int) -> Float[Tensor, "batch span 1"]:
        """Return 1 at the positions of some places and 0 elsewhere."""
        key = tuple(places), span
        if key not in self._weights:
            self._weights[key] = self._at(*key)[..., None].to(self._dtype)
        return self._weights[key]

    def rows(self, places: Sequence[int], span: int, width: int) -> Int[Tensor, " row"]:
        """Return the positions of some places, numbered through all prompts.

        Args:
            places: The places.
            span: Among how many last positions.
            width: How many last positions of each prompt are numbered.
        """
        key = tuple(places), span, width
        if key not in self._rows:
            prompt, position = self._at(key[0], span).nonzero(as_tuple=True)
            self._rows[key] = prompt * width + (width - span) + position
        return self._rows[key]

    def _at(self, places: PlaceNumbers, span: int) -> Bool[Tensor, "batch span"]:
        return self._masks[list(places), :, -span:].any(dim=0)
