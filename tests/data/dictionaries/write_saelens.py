"""Write tiny dictionaries with SAELens itself, and what it computes with them.

    python tests/data/dictionaries/write_saelens.py     # with sae-lens 6.54 installed

SAELens needs TransformerLens 3, so this does not run in the environment of the tests. Each
directory under `saelens/` holds the two files that SAELens saves, and `expected.safetensors`:
inputs `x`, and the `latents` and `output` that SAELens computes after it has read the files again.
"""

import json
import shutil
from pathlib import Path

import torch
from sae_lens import SAE, __version__
from sae_lens.saes import (
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    JumpReLUSkipTranscoder,
    JumpReLUSkipTranscoderConfig,
    JumpReLUTranscoder,
    JumpReLUTranscoderConfig,
    SkipTranscoder,
    SkipTranscoderConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    Transcoder,
    TranscoderConfig,
)
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import save_file

HERE = Path(__file__).parent / "saelens"

SIZES = {"d_in": 6, "d_sae": 16, "device": "cpu"}
MLP_OUT = {"hook_name": "blocks.1.hook_mlp_out"}
THROUGH = {"hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.hook_mlp_out"}
TRANSCODES = {**SIZES, "d_out": 5, "apply_b_dec_to_input": False}

KINDS = {
    "standard": (StandardSAE, StandardSAEConfig, SIZES, MLP_OUT),
    "standard_bare_input": (
        StandardSAE, StandardSAEConfig, {**SIZES, "apply_b_dec_to_input": False}, MLP_OUT,
    ),
    "heads": (
        StandardSAE, StandardSAEConfig, {**SIZES, "reshape_activations": "hook_z"},
        {"hook_name": "blocks.0.attn.hook_z"},
    ),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, SIZES, {"hook_name": "blocks.3.hook_resid_post"}),
    "topk": (TopKSAE, TopKSAEConfig, {**SIZES, "k": 5}, MLP_OUT),
    "topk_rescaled": (
        TopKSAE, TopKSAEConfig, {**SIZES, "k": 5, "rescale_acts_by_decoder_norm": True}, MLP_OUT,
    ),
    "gated": (GatedSAE, GatedSAEConfig, SIZES, MLP_OUT),
    "transcoder": (Transcoder, TranscoderConfig, TRANSCODES, THROUGH),
    "skip_transcoder": (SkipTranscoder, SkipTranscoderConfig, TRANSCODES, THROUGH),
    "jumprelu_transcoder": (JumpReLUTranscoder, JumpReLUTranscoderConfig, TRANSCODES, THROUGH),
    "jumprelu_skip_transcoder": (
        JumpReLUSkipTranscoder, JumpReLUSkipTranscoderConfig, TRANSCODES, THROUGH,
    ),
}  # fmt: skip

OLD = {
    "standard": {"hook_point": "blocks.1.hook_mlp_out", "hook_point_layer": 1},
    "topk": {
        "hook_name": "blocks.1.hook_mlp_out",
        "hook_layer": 1,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 5},
        "normalize_activations": "none",
        "apply_b_dec_to_input": True,
    },
}
"""Flat configurations, as SAELens wrote them before 6.0; it still reads them."""


def write(folder: Path, sae: SAE) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for weights in sae.parameters():
        weights.data.normal_(0, 0.6)
    sae.save_model(folder)


def expect(folder: Path) -> None:
    sae = SAE.load_from_disk(folder)
    x = torch.randn(3, 4, 6)
    given = x.view(3, 4, 2, 3) if sae.cfg.reshape_activations == "hook_z" else x
    with torch.no_grad():
        latents, output = sae.encode(given), sae(given)
    found = {"x": x, "latents": latents, "output": output.flatten(2)}
    save_file(
        {name: value.contiguous() for name, value in found.items()}, folder / "expected.safetensors"
    )
    print(folder.name, "active:", (latents != 0).float().mean().item(), __version__)


def main() -> None:
    torch.manual_seed(0)
    for name, (kind, config, settings, about) in KINDS.items():
        metadata = SAEMetadata(model_name="tiny", prepend_bos=True, **about)
        write(HERE / name, kind(config(**settings, metadata=metadata)))
        expect(HERE / name)
    for name, settings in OLD.items():
        folder = HERE / f"{name}_before_6"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(HERE / name, folder)
        flat = {"d_in": 6, "d_sae": 16, "dtype": "torch.float32", "model_name": "tiny", **settings}
        (folder / "cfg.json").write_text(json.dumps(flat))
        expect(folder)


if __name__ == "__main__":
    main()
