"""How much is held at once, by the kind of device.

A processor works fastest on what its cache holds; an accelerator has to be given more at once.
"""

from typing import NamedTuple

import torch


class Sizes(NamedTuple):
    """How much is held at once.

    Attributes:
        candidates: How many numbers the streams of candidates have that are evaluated together.
        kl_steps: Of how many steps of prompts logits are held for KL divergence. With fewer, more
            time goes into reading the unembedding.
        kl_tokens: Of how many tokens.
        products: How many numbers gradients and writers' differences have that are multiplied.
    """

    candidates: int
    kl_steps: int
    kl_tokens: int
    products: int


_PROCESSOR = Sizes(candidates=1 << 20, kl_steps=256, kl_tokens=2048, products=1 << 24)

_ACCELERATOR = Sizes(candidates=1 << 25, kl_steps=1024, kl_tokens=1 << 15, products=1 << 27)


def sizes_of(device: torch.device) -> Sizes:
    """Return how much is held at once on a device."""
    return _PROCESSOR if device.type == "cpu" else _ACCELERATOR
