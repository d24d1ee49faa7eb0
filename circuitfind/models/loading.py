"""From what a user names to a model that has passed its self-check.

A model is named by an embedded model's name, a pretrained one's, a directory in Hugging Face
layout, a GGUF file, a compiled model's JSON file, a name on the Hugging Face hub, or `NAME:REST`
with the name of a source from outside; in Python also by a Hugging Face model or a
`TransformerBridge` itself. Weights are read from safetensors and GGUF only: pickles can run code.
"""

from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import torch

from circuitfind.errors import ModelError
from circuitfind.models import gguf_files
from circuitfind.models.assumptions import require_assumptions
from circuitfind.models.base import BaseModel, ResidualModel
from circuitfind.models.compiled import load_compiled
from circuitfind.models.guards import quiet_loading, reading, refusing
from circuitfind.models.hub import fetched, weight_files
from circuitfind.models.objects import own_copy, require_plain
from circuitfind.models.precision import computed_in, held_in, number_type, rounded, stored_in
from circuitfind.models.self_check import random_tokens, require_faithful
from circuitfind.models.sources import file_type, find_source, require_directory, require_tokenizer
from circuitfind.models.transformer_lens import TransformerLensModel
from circuitfind.models.vocabulary import Vocabulary, vocabulary_of
from circuitfind.models.zoo.architectures import NATIVE, load_native

AnyModel = TypeVar("AnyModel", bound=ResidualModel)

_ANY_LENGTH = 1 << 20
"""For models without a longest prompt (ALiBi)."""


def load_model(
    source: Any,
    *,
    tokenizer: Any = None,
    dtype: str | None = None,
    device: str | None = None,
) -> ResidualModel:
    """Load a model and check that its parts reproduce it.

    Half-precision weights are computed with in float32. A model or bridge that is given stays as
    it is: a copy is loaded, which shares its weights where neither type nor device changes.

    Args:
        source: An embedded or pretrained model's name, a directory, a GGUF file, a compiled
            model's JSON file, a hub name, a `NAME:REST` for a registered `ModelSource`, a Hugging
            Face model, or a `TransformerBridge` with raw weights.
        tokenizer: The tokenizer of a Hugging Face model or bridge; others bring their own.
        dtype: What weights are rounded to: `float32`, `float64`, `bfloat16` or `float16`; by
            default they keep their values.
        device: `cpu` or `cuda`; by default where a given model is, and the CPU for others.

    Raises:
        ModelError: Nothing can be loaded from the source, with what is missing.
        SelfCheckError: The parts do not reproduce the model, with the measured difference.
    """
    weights = number_type(dtype)
    _require_device(device or "cpu")
    if not isinstance(source, str | Path):
        return _wrap(source, tokenizer, weights, device)
    model = _named(source, dtype, device or "cpu")
    if isinstance(model, BaseModel):
        # The same for processes that work elsewhere, or see another GPU under the same name.
        where = str(Path(source).resolve()) if file_type(Path(source)) else str(source)
        kind = torch.device(device or "cpu").type
        model.loaded_by = partial(load_model, where, dtype=dtype, device=kind)
    return model


def _named(source: str | Path, dtype: str | None, device: str) -> ResidualModel:
    """Load a model by its name or path."""
    weights, found = number_type(dtype), find_source(source)
    if found.outside is not None:
        with refusing(f"{str(source)!r} cannot be loaded"):
            model = found.outside.load(found.name, dtype=dtype, device=device)
        if not isinstance(model, ResidualModel):
            raise ModelError(
                f"{str(source)!r} is loaded as {type(model).__name__!r}, which has not all parts "
                "of a `ResidualModel`; add what circuitfind/models/base.py lists"
            )
        return _checked_by_itself(model)
    if found.kind == "program":
        return _checked_by_itself(load_compiled(found.path, device, weights))
    if found.kind == "gguf":
        return _from_gguf(found.path, found.name, weights, device)
    folder = fetched(found.name, weights=True) if found.kind == "hub" else found.path
    return _from_directory(folder, found.name, weights, device)


def load_vocabulary(source: str | Path) -> Vocabulary | None:
    """Load what turns text into a model's tokens, without the model's weights.

    Args:
        source: What `load_model` takes, as text; a directory need hold tokenizer files only.

    Raises:
        ModelError: Nothing can be loaded from the source, with what is missing.
    """
    found = find_source(source)
    if found.outside is not None:
        with refusing(f"the tokenizer of {str(source)!r} cannot be loaded"):
            return found.outside.load_vocabulary(found.name)
    if found.kind == "program":
        return load_compiled(found.path, "cpu", None).vocabulary
    if found.kind == "gguf":
        with gguf_files.opened(found.path), quiet_loading():
            return vocabulary_of(_tokenizer(found.path.parent, found.name, found.path.name))
    folder = fetched(found.name, weights=False) if found.kind == "hub" else found.path
    with quiet_loading():
        require_tokenizer(folder, found.name)
        return vocabulary_of(_tokenizer(folder, found.name))


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the device {device!r} cannot be used here ({reason}); choose another, such as cpu"
        ) from None


def _from_directory(
    path: Path, name: str, weights: torch.dtype | None, device: str
) -> TransformerLensModel:
    with reading(path):
        if (path / NATIVE).is_file():
            return _from_native(path, name, weights, device)
        require_directory(path)
        require_tokenizer(path, name)
        with quiet_loading():
            tokenizer = _tokenizer(path, name)
            with refusing(f"{name!r} cannot be loaded"):
                stored = weights or stored_in(weight_files(path) or ())
                model = _rounded(_pretrained(path, name, computed_in(stored)), weights)
            return _from_module(model.to(device), tokenizer, name, stored)


def _from_gguf(
    path: Path, name: str, weights: torch.dtype | None, device: str
) -> TransformerLensModel:
    """Load a GGUF file, whose weights are dequantised."""
    with gguf_files.opened(path) as sizes, reading(path), quiet_loading():
        tokenizer = _tokenizer(path.parent, name, path.name)
        stored = weights or torch.float32
        with refusing(f"{name!r} cannot be loaded"):
            # transformers draws a bar for the weights that it dequantises, whatever its settings.
            with redirect_stderr(StringIO()):
                model = _pretrained(path.parent, name, computed_in(stored), path.name)
            # The weights are quantised no more, and TransformerLens asks the configuration.
            model.config.__dict__.pop("quantization_config", None)
            model = _rounded(model, weights)
        loaded = _from_module(model.to(device), tokenizer, name, stored)
    (stored_as, _), *_ = sizes.most_common(1)
    loaded.quantisation = None if stored_as == "F32" else stored_as
    return loaded


def _rounded(model: Any, weights: torch.dtype | None) -> Any:
    for weight in model.parameters() if weights else ():
        weight.data = rounded(weight.data, weights, weight.dtype)
    return model


def _from_native(
    path: Path, name: str, weights: torch.dtype | None, device: str
) -> TransformerLensModel:
    """Load a network of TransformerLens' own, such as an attention-only one of the zoo."""
    import transformers

    with refusing(f"{name!r} cannot be loaded"), quiet_loading():
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
        bridge = load_native(path)
    return _from_bridge(bridge, tokenizer, name, weights, device)


def _pretrained(path: Path, name: str, dtype: torch.dtype, gguf_file: str | None = None) -> Any:
    import transformers

    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.resolve()),
        attn_implementation="eager",
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        gguf_file=gguf_file,
    )
    # Where a weight is missing, transformers draws a random one.
    if missing := sorted(report["missing_keys"]):
        raise ModelError(_lacking(name, missing, report["unexpected_keys"]))
    return model.eval().requires_grad_(requires_grad=False)


def _lacking(name: str, missing: list[str], unexpected: Any) -> str:
    """Return the weights that a checkpoint lacks, or the prefix that their names have."""
    for found in unexpected:
        for wanted in missing:
            if found.endswith(f".{wanted}"):
                prefix = found.removesuffix(wanted)
                return (
                    f"{name!r} has weights whose names begin with {prefix!r}, as those of a model "
                    "inside a wrapper (torch.compile, DataParallel); save the model itself, or "
                    "take the prefix off the names"
                )
    return (
        f"{name!r} lacks {len(missing)} of its weights, among them {missing[0]!r}; give a complete "
        "checkpoint of a model with a language-model head"
    )


def _tokenizer(path: Path, name: str, gguf_file: str | None = None) -> Any:
    import transformers

    with refusing(f"the tokenizer of {name!r} cannot be loaded"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(path.resolve()), local_files_only=True, gguf_file=gguf_file
        )
    # Where a file is missing, transformers invents an empty tokenizer.
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"{name!r} has no tokenizer files that hold a vocabulary; add the tokenizer that the "
            "model was trained with (tokenizer.json and tokenizer_config.json)"
        )
    return tokenizer


def _wrap(
    source: Any, tokenizer: Any, weights: torch.dtype | None, device: str | None
) -> TransformerLensModel:
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    if isinstance(source, torch.nn.Module):
        require_plain(source, _name_of(source))
    if isinstance(source, TransformerBridge):
        _require_raw(source)
        tokenizer = tokenizer or source.tokenizer
        return _from_bridge(source, tokenizer, _name_of(source), weights, device)
    if isinstance(source, transformers.PreTrainedModel):
        name = _name_of(source)
        with quiet_loading(), refusing(f"{name!r} cannot be copied"):
            model = own_copy(source, weights, device)
        return _from_module(model, tokenizer, name, weights or held_in(source))
    raise ModelError(
        f"an object of type {type(source).__name__!r} is not a model; give a name, a directory, "
        "a Hugging Face model or a TransformerBridge"
    )


def _name_of(source: Any) -> str:
    name = getattr(getattr(source, "config", None), "name_or_path", None)
    name = name or getattr(getattr(source, "cfg", None), "model_name", None)
    return str(name or type(source).__name__)


def _from_module(
    model: Any, tokenizer: Any, name: str, weights: torch.dtype
) -> TransformerLensModel:
    """Wrap a Hugging Face model that is nobody else's."""
    model.set_attn_implementation("eager")
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
    wrapped = _wrapped(_bridge(model, name, parameter), tokenizer, name, weights)
    with refusing(f"{name!r} cannot be run part by part"):
        require_faithful(wrapped, tokens, expected)
        require_assumptions(wrapped, tokens)
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


def _require_raw(bridge: Any) -> None:
    if getattr(bridge, "compatibility_mode", False):
        raise ModelError(
            "this bridge is in compatibility mode, which changes what each component writes; "
            "give a bridge with raw weights"
        )


def _from_bridge(
    source: Any, tokenizer: Any, name: str, weights: torch.dtype | None, device: str | None
) -> TransformerLensModel:
    """Wrap a copy of a bridge, which no other implementation is at hand for."""
    with refusing(f"{name!r} cannot be copied"):
        stored = weights or held_in(source.original_model)
        bridge = own_copy(source, weights, device)
        bridge.cfg.device = device or bridge.cfg.device
        bridge.cfg.dtype = computed_in(stored)
    return _checked_by_itself(_wrapped(bridge, tokenizer, name, stored))


def _wrapped(bridge: Any, tokenizer: Any, name: str, weights: torch.dtype) -> TransformerLensModel:
    bridge.requires_grad_(requires_grad=False)
    vocabulary = None if tokenizer is None else vocabulary_of(tokenizer)
    with refusing(f"{name!r} has no blocks of attention heads that can be told apart"):
        return TransformerLensModel(bridge.eval(), name, vocabulary, weights)


def _checked_by_itself(model: AnyModel) -> AnyModel:
    """Check a model that no other implementation of it is at hand for."""
    with refusing(f"{model.name!r} cannot be run part by part"):
        tokens = random_tokens(model.n_tokens, model.n_positions).to(model.device)
        require_faithful(model, tokens, model.own_logits(tokens))
        require_assumptions(model, tokens)
    return model
