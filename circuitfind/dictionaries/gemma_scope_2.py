"""Gemma Scope 2: `config.json` and `params.safetensors`.

Sites are those of Hugging Face's modules, within a layer. The skip connection is kept as a map from
inputs to outputs, the other way round than in all other formats.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from circuitfind.dictionaries.activations import JumpRelu
from circuitfind.dictionaries.base import DictionaryFormat, json_object
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.tensors import Tensors
from circuitfind.errors import quoted
from circuitfind.records import from_json
from circuitfind.stored import read_tensors

_CONFIG, _WEIGHTS = "config.json", "params.safetensors"

_POINT = re.compile(r"(?:.*\.)?layers\.(\d{1,9})\.(.+)")

_HOOKS = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "post_attention_layernorm.output": "hook_attn_out",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}
"""What is found at a module's input or output, within a layer."""

_SKIP = "affine_skip_connection"


@dataclass(frozen=True)
class _Config:
    """What `config.json` says."""

    architecture: str
    hf_hook_point_in: str
    hf_hook_point_out: str | None = None
    model_name: str | None = None

    @property
    def site(self) -> Site:
        layer, reads = _hook(self.hf_hook_point_in)
        into, writes = _hook(self.hf_hook_point_out or self.hf_hook_point_in)
        if layer != into:
            raise ValueError(f"it reads layer {layer} and writes to layer {into}")
        return Site(layer, reads, writes)


def _hook(point: str) -> tuple[int, str]:
    match = _POINT.fullmatch(point)
    if match is None or match[2] not in _HOOKS:
        raise ValueError(
            f"it is about {quoted(point)}; of a layer, {', '.join(_HOOKS)} can be used"
        )
    return int(match[1]), _HOOKS[match[2]]


def _read(folder: Path) -> tuple[Dictionary, ...]:
    config: _Config = from_json(_Config, json_object(folder / _CONFIG), _CONFIG)
    if config.architecture != "jump_relu":
        raise ValueError(f"its architecture is {quoted(config.architecture)}, not jump_relu")
    tensors = Tensors(read_tensors(folder / _WEIGHTS))
    encoder = tensors.take("w_enc", "d_in", "n")
    bias, thresholds = tensors.take("b_enc", "n"), tensors.take("threshold", "n")
    decoder, decoder_bias = tensors.take("w_dec", "n", "d_out"), tensors.take("b_dec", "d_out")
    skip = tensors.take(_SKIP, "d_in", "d_out").T.contiguous() if _SKIP in tensors else None
    tensors.done()
    found = Dictionary(
        name=str(folder),
        site=config.site,
        encoder=encoder.T.contiguous(),
        encoder_bias=bias,
        # A ReLU is taken as well.
        activation=JumpRelu(thresholds.clamp(min=0)),
        decoder=decoder,
        decoder_bias=decoder_bias,
        skip=skip,
        trained_on=config.model_name,
    )
    return (found,)


GEMMA_SCOPE_2 = DictionaryFormat(
    "gemma-scope-2", "Gemma Scope 2 (config.json and params.safetensors)", _WEIGHTS, _read
)
