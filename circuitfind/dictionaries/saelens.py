"""SAELens: `cfg.json` and `sae_weights.safetensors`.

Since version 6.0 what concerns the model is nested in `metadata`; before, all was flat, and some
fields had other names. SAELens folds `expected_average_only_in` into the weights before it saves,
and the factor itself is in no file; so a file that still asks for it cannot be used as it is.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from circuitfind.dictionaries.activations import Activation, JumpRelu, relu, top_k
from circuitfind.dictionaries.base import DictionaryFormat, json_object
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site, site_of
from circuitfind.dictionaries.tensors import Tensors
from circuitfind.errors import quoted
from circuitfind.files import write_whole
from circuitfind.records import from_json
from circuitfind.stored import read_tensors

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"

_VERSION = "6.0.0"
"""The form that is written: that of SAELens since this version."""

_ARCHITECTURES = {
    "standard": "relu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu": "jumprelu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
    "topk": "topk",
    "gated": "gated",
}
"""How latents are activated, by architecture."""

_OLD_NAMES = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}

_FACTORS = ("scaling_factor", "finetuning_scaling_factor")


@dataclass(frozen=True)
class _Config:
    """What `cfg.json` says, in either form."""

    d_in: int
    d_sae: int
    hook_name: str
    architecture: str = "standard"
    d_out: int | None = None
    hook_name_out: str | None = None
    hook_head_index: int | None = None
    model_name: str | None = None
    activation_fn: str = "relu"
    apply_b_dec_to_input: bool = True
    normalize_activations: str | None = None
    rescale_acts_by_decoder_norm: bool = False
    k: int | None = None

    @property
    def is_transcoder(self) -> bool:
        return self.architecture.endswith("transcoder")

    @property
    def site(self) -> Site:
        return site_of(self.hook_name, self.hook_name_out if self.is_transcoder else None)


def _read(folder: Path) -> tuple[Dictionary, ...]:
    config = _config(json_object(folder / _CONFIG))
    sizes = {"d_in": config.d_in, "d_sae": config.d_sae, "d_out": config.d_out or config.d_in}
    tensors = Tensors(read_tensors(folder / _WEIGHTS), **sizes)
    for name in _FACTORS:
        if name in tensors:
            tensors.take_ones(name)
    decoder = tensors.take("W_dec", "d_sae", "d_out")
    decoder_bias = tensors.take("b_dec", "d_out")
    encode = _ENCODERS[_ARCHITECTURES[config.architecture]]
    encoder, bias, activation = encode(config, tensors)
    skips = "skip" in config.architecture
    skip = tensors.take("W_skip", "d_out", "d_in") if skips else None
    tensors.done()
    if config.rescale_acts_by_decoder_norm:
        norms = decoder.norm(dim=-1)
        encoder, bias, decoder = encoder * norms, bias * norms, decoder / norms[:, None]
    if config.apply_b_dec_to_input and not config.is_transcoder:
        bias = bias - decoder_bias @ encoder
    found = Dictionary(
        name=str(folder),
        site=config.site,
        encoder=encoder.T.contiguous(),
        encoder_bias=bias,
        activation=activation,
        decoder=decoder,
        decoder_bias=decoder_bias,
        skip=skip,
        trained_on=config.model_name,
    )
    return (found,)


_Encoder = tuple[Float[Tensor, "d_in latent"], Float[Tensor, " latent"], Activation]


def _relu(config: _Config, tensors: Tensors) -> _Encoder:
    return *_linear(tensors), relu(config.d_sae)


def _jumprelu(config: _Config, tensors: Tensors) -> _Encoder:
    # SAELens takes the ReLU as well: below 0 nothing is active, whatever the threshold is.
    thresholds = tensors.take("threshold", "d_sae").clamp(min=0)
    return *_linear(tensors), JumpRelu(thresholds)


def _topk(config: _Config, tensors: Tensors) -> _Encoder:
    return *_linear(tensors), top_k(config.k, config.d_sae, rectified=True)


def _gated(config: _Config, tensors: Tensors) -> _Encoder:
    """Read a gated SAE: its gate opens where its magnitude is above a threshold.

    With `g = x W_enc`: the gate is open where `g + b_gate > 0`, and the magnitude is
    `m = g exp(r_mag) + b_mag`, so it is open where `m > b_mag - b_gate exp(r_mag)`.
    """
    gate, magnitude, ratio = (tensors.take(name, "d_sae") for name in ("b_gate", "b_mag", "r_mag"))
    factor = ratio.exp()
    encoder = tensors.take("W_enc", "d_in", "d_sae") * factor
    return encoder, magnitude, JumpRelu((magnitude - gate * factor).clamp(min=0))


def _linear(tensors: Tensors) -> tuple[Float[Tensor, "d_in latent"], Float[Tensor, " latent"]]:
    return tensors.take("W_enc", "d_in", "d_sae"), tensors.take("b_enc", "d_sae")


_ENCODERS: Mapping[str, Callable[[_Config, Tensors], _Encoder]] = {
    "relu": _relu,
    "jumprelu": _jumprelu,
    "topk": _topk,
    "gated": _gated,
}


def _config(content: Mapping[str, Any]) -> _Config:
    """Read the configuration in either form.

    Raises:
        ValueError: It lacks something, or asks for what cannot be done.
    """
    flat = {**_metadata(content), **content}
    flat = {_OLD_NAMES.get(name, name): value for name, value in flat.items()}
    if isinstance(normalised := flat.get("normalize_activations"), bool):
        flat["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    if flat.get("activation_fn") == "topk":
        arguments = flat.get("activation_fn_kwargs")
        flat |= {"architecture": "topk", "activation_fn": "relu"}
        flat |= {"k": arguments.get("k")} if isinstance(arguments, dict) else {}
    config: _Config = from_json(_Config, flat, _CONFIG)
    _require_usable(config)
    return config


def _metadata(content: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = content.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"{_CONFIG}.metadata is not an object")
    return metadata


def _require_usable(config: _Config) -> None:
    if config.architecture not in _ARCHITECTURES:
        raise ValueError(
            f"its architecture is {quoted(config.architecture)}; {', '.join(_ARCHITECTURES)} can "
            "be used"
        )
    if config.activation_fn != "relu":
        raise ValueError(
            f"its activation function is {quoted(config.activation_fn)}; relu and topk can be used"
        )
    if config.normalize_activations == "expected_average_only_in":
        raise ValueError(
            "its inputs were divided by an average that is not in its files; fold that in with "
            "SAELens (fold_activation_norm_scaling_factor) and save it again"
        )
    if config.normalize_activations not in (None, "none"):
        raise ValueError(
            f"it normalises its inputs ({quoted(config.normalize_activations)}), so its latents "
            "are not linear in what it reads; only dictionaries without that can be used"
        )
    if config.hook_head_index is not None:
        raise ValueError(
            f"it is about head {config.hook_head_index} alone; only dictionaries of whole "
            "activations can be used"
        )
    if config.is_transcoder and config.hook_name_out is None:
        raise ValueError("it is a transcoder, and no hook_name_out says what it writes")


def save_saelens(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary whose activation is a JumpReLU.

    Args:
        dictionary: An SAE, or a transcoder; no threshold may be negative, since SAELens takes a
            ReLU as well.
        folder: The directory for its two files.

    Raises:
        ValueError: Its activation is another one.
        OSError: A file cannot be written.
    """
    activation, site = dictionary.activation, dictionary.site
    if not isinstance(activation, JumpRelu) or bool((activation.thresholds < 0).any()):
        raise ValueError("only a JumpReLU without negative thresholds can be written")
    weights = {
        "W_enc": dictionary.encoder.T,
        "b_enc": dictionary.encoder_bias,
        "threshold": activation.thresholds,
        "W_dec": dictionary.decoder,
        "b_dec": dictionary.decoder_bias,
        **({} if dictionary.skip is None else {"W_skip": dictionary.skip}),
    }
    kind = "" if site.is_sae else "_transcoder" if dictionary.skip is None else "_skip_transcoder"
    block = f"blocks.{site.layer}"
    content = {
        "architecture": f"jumprelu{kind}",
        "d_in": dictionary.d_in,
        "d_sae": dictionary.n_latents,
        **({} if site.is_sae else {"d_out": dictionary.d_out}),
        "dtype": str(dictionary.encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if site.reads == "attn.hook_z" else "none",
        "metadata": {
            "sae_lens_version": _VERSION,
            "model_name": dictionary.trained_on,
            "hook_name": f"{block}.{site.reads}",
            **({} if site.is_sae else {"hook_name_out": f"{block}.{site.writes}"}),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    write_whole(folder / _WEIGHTS, save(contiguous))
    write_whole(folder / _CONFIG, json.dumps(content, indent=1) + "\n")


SAELENS = DictionaryFormat(
    "saelens", "SAELens (cfg.json and sae_weights.safetensors)", _WEIGHTS, _read
)
