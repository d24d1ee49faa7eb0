"""From what a user names to a model that has passed its self-check.

A model is named by an embedded model's name, a directory in Hugging Face layout, a compiled
model's JSON file, or a name on the Hugging Face hub; in Python also by a Hugging Face model or a
`TransformerBridge` itself. Weights are read from safetensors only: pickles can run code.
"""

from pathlib import Path
from typing import Any, TypeVar

import torch

from circuitfind.errors import ModelError
from circuitfind.models.base import ResidualModel
from circuitfind.models.compiled import CompiledModel, load_compiled
from circuitfind.models.guards import quiet_loading, refusing
from circuitfind.models.self_check import random_tokens, require_faithful
from circuitfind.models.transformer_lens import TransformerLensModel
from circuitfind.models.vocabulary import Vocabulary, vocabulary_of
from circuitfind.models.zoo import HANDMADE, TRAINED, ZOO, zoo_path
from circuitfind.models.zoo.architectures import NATIVE, load_native

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

AnyModel = TypeVar("AnyModel", TransformerLensModel, CompiledModel)

_ANY_LENGTH = 1 << 20
"""For models without a longest prompt (ALiBi)."""


def load_model(
    source: Any,
    *,
    tokenizer: Any = None,
    dtype: str | None = None,
    device: str = "cpu",
) -> ResidualModel:
    """Load a model and check that its parts reproduce it.

    Args:
        source: An embedded model's name, a directory, a compiled model's JSON file, a hub name, a
            Hugging Face model, or a `TransformerBridge` with raw weights.
        tokenizer: The tokenizer of a Hugging Face model or bridge; others bring their own.
        dtype: `float32`, `float64` or `bfloat16`; by default that of the weights.
        device: `cpu` or `cuda`.

    Raises:
        ModelError: Nothing can be loaded from the source, with what is missing.
        SelfCheckError: The parts do not reproduce the model, with the measured difference.
    """
    number_type = _number_type(dtype)
    _require_device(device)
    if not isinstance(source, str | Path):
        return _wrap(source, tokenizer, number_type, device)
    name, path = str(source), Path(source)
    if name in TRAINED:
        return _from_directory(zoo_path(name), name, number_type, device)
    path = zoo_path(name) if name in HANDMADE else path
    if path.suffix == ".json" and path.is_file():
        return _checked_by_itself(load_compiled(path, device, number_type))
    if path.is_dir():
        return _from_directory(path, path.resolve().name, number_type, device)
    _require_hub_name(name)
    return _from_hub(name, number_type, device)


def load_vocabulary(source: str | Path) -> Vocabulary | None:
    """Load what turns text into a model's tokens, without the model's weights.

    Args:
        source: What `load_model` takes, as text; a directory need hold tokenizer files only.

    Raises:
        ModelError: Nothing can be loaded from the source, with what is missing.
    """
    name, path = str(source), Path(source)
    path = zoo_path(name) if name in ZOO else path
    if path.suffix == ".json" and path.is_file():
        return load_compiled(path, "cpu", None).vocabulary
    if path.is_dir():
        return vocabulary_of(_tokenizer(str(path.resolve()), name, local_files_only=True))
    _require_hub_name(name)
    return vocabulary_of(_tokenizer(name, name, local_files_only=_found_in_cache(name)))


def _number_type(dtype: str | None) -> torch.dtype | None:
    if dtype is None:
        return None
    if dtype not in DTYPES:
        raise ModelError(f"no number type named {dtype!r}; choose one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the device {device!r} cannot be used here ({reason}); choose another, such as cpu"
        ) from None


def _require_hub_name(name: str) -> None:
    known = f"the embedded models are {', '.join(ZOO)}"
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".json"):
        raise ModelError(f"there is no model at {name!r}: no such file or directory; {known}")


def _from_directory(
    path: Path, name: str, dtype: torch.dtype | None, device: str
) -> TransformerLensModel:
    if (path / NATIVE).is_file():
        return _from_native(path, name, dtype, device)
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path} is no model directory: it has no config.json; give a directory written by "
            "save_pretrained"
        )
    if not list(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} has no weights in safetensors format; save them with "
            "save_pretrained(..., safe_serialization=True)"
        )
    return _load_pretrained(str(path.resolve()), name, dtype, device, local_files_only=True)


def _from_native(
    path: Path, name: str, dtype: torch.dtype | None, device: str
) -> TransformerLensModel:
    """Load a network of TransformerLens' own, such as an attention-only one of the zoo."""
    import transformers

    with refusing(f"{name!r} cannot be loaded"), quiet_loading():
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
        # The bridge's own `to` prints what it does.
        bridge = torch.nn.Module.to(load_native(path), device=device, dtype=dtype or torch.float32)
    return _checked_by_itself(_from_bridge(bridge, tokenizer, name))


def _from_hub(name: str, dtype: torch.dtype | None, device: str) -> TransformerLensModel:
    cached = _found_in_cache(name)
    return _load_pretrained(name, name, dtype, device, local_files_only=cached)


def _found_in_cache(name: str) -> bool:
    """Tell whether a model of the hub is on this machine; if not, the hub must have it."""
    from huggingface_hub import try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    if not cached:
        _require_on_hub(name)
    return cached


def _require_on_hub(name: str) -> None:
    """Ask the hub once, because loading retries for most of a minute where there is none."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=10)
    except Exception as error:  # noqa: BLE001  (the client raises errors of several libraries)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"no model is named {name!r}: it is no embedded model ({', '.join(ZOO)}), no directory "
            f"here, and the hub did not answer for it ({reason})"
        ) from None


def _load_pretrained(
    location: str, name: str, dtype: torch.dtype | None, device: str, *, local_files_only: bool
) -> TransformerLensModel:
    import transformers

    with quiet_loading():
        tokenizer = _tokenizer(location, name, local_files_only=local_files_only)
        with refusing(f"{name!r} cannot be loaded"):
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                location,
                attn_implementation="eager",
                dtype=dtype or "auto",
                use_safetensors=True,
                local_files_only=local_files_only,
                output_loading_info=True,
            )
        # Where a weight is missing, transformers draws a random one.
        if missing := sorted(report["missing_keys"]):
            raise ModelError(
                f"{name!r} lacks {len(missing)} of its weights, among them {missing[0]!r}; give a "
                "complete checkpoint of a model with a language-model head"
            )
        return _from_module(model.to(device), tokenizer, name)


def _tokenizer(location: str, name: str, *, local_files_only: bool) -> Any:
    import transformers

    with refusing(f"the tokenizer of {name!r} cannot be loaded"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            location, local_files_only=local_files_only
        )
    # Where the files are missing, transformers invents an empty tokenizer.
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"{name!r} has no tokenizer files; add the tokenizer that the model was trained "
            "with (tokenizer.json and tokenizer_config.json)"
        )
    return tokenizer


def _wrap(
    source: Any, tokenizer: Any, dtype: torch.dtype | None, device: str
) -> TransformerLensModel:
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    if isinstance(source, TransformerBridge):
        if dtype is not None:
            source = source.to(dtype)
        name = getattr(source.cfg, "model_name", None) or "bridge"
        return _checked_by_itself(_from_bridge(source, tokenizer or source.tokenizer, name))
    if isinstance(source, transformers.PreTrainedModel):
        model = source.to(device) if dtype is None else source.to(device, dtype)
        name = source.config.name_or_path or type(source).__name__
        with quiet_loading():
            return _from_module(model, tokenizer, name)
    raise ModelError(
        f"an object of type {type(source).__name__!r} is no model; give a name, a directory, "
        "a Hugging Face model or a TransformerBridge"
    )


def _from_module(model: Any, tokenizer: Any, name: str) -> TransformerLensModel:
    """Wrap a Hugging Face model. Its attention is switched to the eager kind, in place."""
    model.eval().set_attn_implementation("eager")
    if hasattr(model, "set_experts_implementation"):
        # The grouped kernels of mixtures of experts know no float64.
        model.set_experts_implementation("eager")
    parameter = next(model.parameters())
    n_positions = getattr(model.config, "max_position_embeddings", None) or _ANY_LENGTH
    # Before the wrapping: a bridge that splits the weights wrongly agrees with itself.
    with refusing(f"{name!r} cannot be run on tokens alone, as a language model can"):
        tokens = random_tokens(model.get_input_embeddings().weight.shape[0], n_positions)
        tokens = tokens.to(parameter.device)
        with torch.no_grad():
            expected = model(tokens).logits
    wrapped = _from_bridge(_bridge(model, name, parameter), tokenizer, name)
    with refusing(f"{name!r} cannot be run part by part"):
        require_faithful(wrapped, tokens, expected.to(wrapped.dtype))
    return wrapped


def _bridge(model: Any, name: str, parameter: torch.Tensor) -> Any:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    with refusing(f"TransformerLens cannot wrap {name!r}, a {type(model).__name__}"):
        return build_bridge_from_module(
            model,
            architecture=type(model).__name__,
            hf_config=model.config,
            tokenizer=None,
            dtype=parameter.dtype,
            device=str(parameter.device),
        )


def _from_bridge(bridge: Any, tokenizer: Any, name: str) -> TransformerLensModel:
    if getattr(bridge, "compatibility_mode", False):
        raise ModelError(
            "this bridge is in compatibility mode, which changes what each component writes; "
            "give a bridge with raw weights"
        )
    bridge.requires_grad_(requires_grad=False)
    vocabulary = None if tokenizer is None else vocabulary_of(tokenizer)
    with refusing(f"{name!r} has no blocks of attention heads that can be told apart"):
        return TransformerLensModel(bridge.eval(), name, vocabulary)


def _checked_by_itself(model: AnyModel) -> AnyModel:
    """Check a model that no other implementation of it is at hand for."""
    with refusing(f"{model.name!r} cannot be run part by part"):
        tokens = random_tokens(model.n_tokens, model.n_positions).to(model.device)
        require_faithful(model, tokens, model.own_logits(tokens))
    return model
