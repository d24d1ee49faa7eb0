"""Small random dictionaries in float64, made from a seed: transcoders, and SAEs of MLP outputs."""

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from circuitfind.dictionaries.activations import JumpRelu, TopK
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from tests.oracles.checkpoints import D_MODEL

N_LATENTS = 12

ActivationName = Literal["relu", "jumprelu", "topk"]


@cache
def random_dictionary(
    layer: int,
    activation: ActivationName = "relu",
    *,
    skip: bool = False,
    reads: str = "mlp.hook_in",
    writes: str = "hook_mlp_out",
    seed: int = 0,
) -> Dictionary:
    """Return a dictionary of which about half of the latents are active at a position."""
    generator = torch.Generator().manual_seed(100 * seed + layer)

    def drawn(*shape: int, scale: float) -> Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Dictionary(
        name=f"random {activation}",
        site=Site(layer, reads, writes),
        encoder=drawn(N_LATENTS, D_MODEL, scale=D_MODEL**-0.5),
        encoder_bias=drawn(N_LATENTS, scale=0.2),
        activation={
            "relu": JumpRelu(torch.zeros(N_LATENTS, dtype=torch.float64)),
            "jumprelu": JumpRelu(drawn(N_LATENTS, scale=0.4).abs()),
            "topk": TopK(4),
        }[activation],
        decoder=drawn(N_LATENTS, D_MODEL, scale=0.5),
        decoder_bias=drawn(D_MODEL, scale=0.2),
        skip=drawn(D_MODEL, D_MODEL, scale=0.5 * D_MODEL**-0.5) if skip else None,
    )
