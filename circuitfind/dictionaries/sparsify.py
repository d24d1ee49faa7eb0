"""sparsify: `cfg.json` and `sae.safetensors`, in a directory named after a module.

The module is that of Hugging Face: `layers.5.mlp`, `h.5.attn`, or `layers.5` for what a whole block
leaves in the residual stream.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from circuitfind.dictionaries.activations import top_k
from circuitfind.dictionaries.base import DictionaryFormat, json_object
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.tensors import Tensors
from circuitfind.errors import quoted
from circuitfind.records import from_json
from circuitfind.stored import read_tensors

_CONFIG, _WEIGHTS = "cfg.json", "sae.safetensors"

_MODULE = re.compile(r"(?:.*\.)?(?:layers|h|blocks)[._](\d{1,9})(?:\.([a-z_]+))?")

_OUTPUTS = {
    None: "hook_resid_post",
    "mlp": "mlp.hook_out",
    "attn": "attn.hook_out",
    "self_attn": "attn.hook_out",
    "attention": "attn.hook_out",
}
"""The output of a module within a block; None for the block itself."""


@dataclass(frozen=True)
class _Config:
    """What `cfg.json` says."""

    d_in: int
    k: int
    expansion_factor: int = 32
    num_latents: int = 0
    activation: str = "topk"
    signed: bool = False
    skip_connection: bool = False
    transcode: bool = False


def _read(folder: Path) -> tuple[Dictionary, ...]:
    config: _Config = from_json(_Config, json_object(folder / _CONFIG), _CONFIG)
    if config.activation != "topk" or config.signed:
        kind = "signed topk" if config.signed else config.activation
        raise ValueError(f"its activation is {quoted(kind)}; only topk can be used")
    n = config.num_latents or config.d_in * config.expansion_factor
    tensors = Tensors(read_tensors(folder / _WEIGHTS), d_in=config.d_in, n=n)
    encoder = tensors.take("encoder.weight", "n", "d_in")
    bias = tensors.take("encoder.bias", "n")
    decoder = tensors.take("W_dec", "n", "d_in")
    decoder_bias = tensors.take("b_dec", "d_in")
    skip = tensors.take("W_skip", "d_in", "d_in") if config.skip_connection else None
    tensors.done()
    found = Dictionary(
        name=str(folder),
        site=_site(folder.resolve().name, transcodes=config.transcode),
        encoder=encoder,
        encoder_bias=bias if config.transcode else bias - encoder @ decoder_bias,
        activation=top_k(config.k, n, rectified=True),
        decoder=decoder,
        decoder_bias=decoder_bias,
        skip=skip,
    )
    return (found,)


def _site(module: str, *, transcodes: bool) -> Site:
    """Return the site that a directory's name tells.

    Raises:
        ValueError: It is not the name of a module in a block, or not of one that can be used.
    """
    match = _MODULE.fullmatch(module)
    if match is None or match[2] not in _OUTPUTS:
        raise ValueError(
            f"its directory is named {quoted(module)}, which does not say what it is about; name "
            "it as sparsify does: layers.LAYER, layers.LAYER.mlp or layers.LAYER.self_attn"
        )
    layer, output = int(match[1]), _OUTPUTS[match[2]]
    if not transcodes:
        return Site(layer, output, output)
    if match[2] != "mlp":
        raise ValueError(f"it is a transcoder of {quoted(module)}; only those of MLPs can be used")
    return Site(layer, "mlp.hook_in", output)


SPARSIFY = DictionaryFormat("sparsify", "sparsify (cfg.json and sae.safetensors)", _WEIGHTS, _read)
