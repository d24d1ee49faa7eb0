"""circuit-tracer, a transcoder for each layer: `config.yaml` and `layer_{i}.safetensors`.

Its JumpReLU does not take a ReLU as well, so a latent with a negative threshold may have a negative
activation; nor does its TopK.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuitfind.dictionaries.activations import Activation, JumpRelu, relu, top_k
from circuitfind.dictionaries.base import DictionaryFormat
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.tensors import Tensors
from circuitfind.errors import quoted, shortened
from circuitfind.files import read_text
from circuitfind.records import from_json
from circuitfind.stored import read_tensors

_CONFIG = "config.yaml"
_LAYER = re.compile(r"layer_(\d{1,9})\.safetensors")
_THRESHOLD = "activation_function.threshold"
_MOST_BYTES = 1 << 20
"""The largest `config.yaml`: 1 MiB."""


@dataclass(frozen=True)
class _Config:
    """What `config.yaml` says."""

    model_kind: str
    feature_input_hook: str
    feature_output_hook: str
    model_name: str | None = None
    activation: Literal["relu", "jumprelu", "topk"] | None = None
    k: int | None = None


def _read(folder: Path) -> tuple[Dictionary, ...]:
    config = _config(folder / _CONFIG)
    layers = {
        int(match[1]): item
        for item in sorted(folder.iterdir())
        if (match := _LAYER.fullmatch(item.name))
    }
    if not layers:
        raise ValueError("there is no layer_0.safetensors or that of another layer beside it")
    return tuple(_one(config, layer, path) for layer, path in sorted(layers.items()))


def _one(config: _Config, layer: int, path: Path) -> Dictionary:
    try:
        tensors = Tensors(read_tensors(path))
        encoder = tensors.take("W_enc", "n", "d_in")
        bias = tensors.take("b_enc", "n")
        decoder = tensors.take("W_dec", "n", "d_out")
        decoder_bias = tensors.take("b_dec", "d_out")
        skip = tensors.take("W_skip", "d_out", "d_in") if "W_skip" in tensors else None
        activation = _activation(config, tensors)
        tensors.done()
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return Dictionary(
        name=str(path),
        site=Site(layer, config.feature_input_hook, config.feature_output_hook),
        encoder=encoder,
        encoder_bias=bias,
        activation=activation,
        decoder=decoder,
        decoder_bias=decoder_bias,
        skip=skip,
        trained_on=config.model_name,
    )


def _activation(config: _Config, tensors: Tensors) -> Activation:
    if config.activation == "topk":
        return top_k(config.k, tensors.sizes["n"], rectified=False)
    if _THRESHOLD in tensors:
        return JumpRelu(tensors.take(_THRESHOLD, "n"))
    if config.activation == "jumprelu":
        raise ValueError(f"the tensor {_THRESHOLD} is missing")
    return relu(tensors.sizes["n"])


def _config(path: Path) -> _Config:
    """Read the configuration.

    Raises:
        OSError: It cannot be read.
        ValueError: It lacks something, or is about something else.
    """
    config: _Config = from_json(_Config, _mapping(path), _CONFIG)
    if config.model_kind != "transcoder_set":
        raise ValueError(
            f"its model_kind is {quoted(config.model_kind)}; only a transcoder_set, with a "
            "transcoder for each layer, can be used"
        )
    return config


def _mapping(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(read_text(path, most=_MOST_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{_CONFIG} cannot be read: {shortened(str(error))}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{_CONFIG} does not hold names and values")
    return content


CIRCUIT_TRACER = DictionaryFormat(
    "circuit-tracer",
    "circuit-tracer (config.yaml and layer_0.safetensors, layer_1.safetensors, ...)",
    "layer_*.safetensors",
    _read,
)
