"""Products of tensors that belong to several copies of the same prompts, or to one for all.

A search evaluates many candidates on the same prompts, one copy after the other along the batch.
Most of what a head needs is the same in all of them, and multiplying it once per prompt rather
than once per candidate moves less memory.
"""

from jaxtyping import Float, Shaped
from torch import Tensor


def times(
    left: Float[Tensor, "head left_batch row inner"],
    right: Float[Tensor, "head right_batch inner column"],
) -> Float[Tensor, "head most_batch row column"]:
    """Multiply matrices prompt by prompt; a batch may be a multiple of the other."""
    copies, rest = divmod(left.shape[1], right.shape[1])
    if rest or copies < 2:  # noqa: PLR2004  (one copy needs no folding)
        return in_copies(left, right.shape[1]) @ right
    # The copies become rows of one matrix per prompt.
    rows = left.unflatten(1, (copies, -1)).transpose(1, 2).flatten(2, 3)
    product: Tensor = (rows @ right).unflatten(2, (copies, -1))
    return product.transpose(1, 2).flatten(1, 2)


def in_copies(
    values: Shaped[Tensor, "head batch *_"], batch: int
) -> Shaped[Tensor, "head most_batch *_"]:
    """Repeat prompts along the batch until there are at least this many."""
    copies = batch // values.shape[1]
    return values if copies <= 1 else values.repeat(1, copies, *[1] * (values.ndim - 2))
