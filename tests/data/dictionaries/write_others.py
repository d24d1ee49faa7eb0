"""Write tiny dictionaries with circuit-tracer and sparsify themselves, and what they compute.

    python tests/data/dictionaries/write_others.py

It needs circuit-tracer 0.5, eai-sparsify 1.3 and sae-lens 6.54, which need TransformerLens 3, so
this does not run in the environment of the tests. By hand are `config.yaml`, which circuit-tracer
reads and does not write, and the files of Gemma Scope, whose writer is not public; what they give
is computed by circuit-tracer's and SAELens' readers of them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK
from circuit_tracer.transcoder.single_layer_transcoder import (
    SingleLayerTranscoder,
    TranscoderSet,
    load_gemma_scope_2_transcoder,
    load_gemma_scope_transcoder,
    load_relu_transcoder,
)
from sae_lens.saes import JumpReLUSAE, JumpReLUSAEConfig
from safetensors.torch import save_file
from sparsify import SparseCoder, SparseCoderConfig

HERE = Path(__file__).parent
D, N = 6, 16
CPU = torch.device("cpu")


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    for weights in module.parameters():
        weights.data.normal_(0, 0.6)
    return module


def save(path: Path, x: torch.Tensor, latents: torch.Tensor, output: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"x": x, "latents": latents, "output": output}
    save_file({name: value.detach().contiguous() for name, value in found.items()}, path)
    print(path.relative_to(HERE), (latents != 0).float().mean().item())


def circuit_tracer(name: str, activations: list, *, skip: bool, **settings: object) -> None:
    folder = HERE / "circuit-tracer" / name
    made = {
        layer: drawn(
            SingleLayerTranscoder(
                D, N, activation, layer, skip_connection=skip, device=CPU, dtype=torch.float32
            )
        )
        for layer, activation in enumerate(activations)
    }
    hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
    TranscoderSet(made, **hooks).to_safetensors(str(folder))
    config = {"model_name": "tiny", "model_kind": "transcoder_set", **hooks, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for layer, activation in enumerate(activations):
        path = str(folder / f"layer_{layer}.safetensors")
        one = load_relu_transcoder(path, layer, device=CPU, lazy_encoder=False, lazy_decoder=False)
        if isinstance(activation, TopK):
            one.activation_function = activation
        x = torch.randn(3, 4, D)
        latents = one.encode(x)
        save(folder / "expected" / f"{layer}.safetensors", x, latents, one.decode(latents, x))


def sparsify(module: str, **settings: object) -> None:
    folder = HERE / "sparsify" / module
    made = drawn(SparseCoder(D, SparseCoderConfig(num_latents=N, k=4, **settings)))
    made.save_to_disk(folder)
    one = SparseCoder.load_from_disk(folder)
    x = torch.randn(12, D)
    found = one(x)
    latents = torch.zeros(12, N).scatter(1, found.latent_indices, found.latent_acts)
    save(folder / "expected.safetensors", x, latents, found.sae_out)


def gemma_scope(release: str, *, transcodes: bool) -> None:
    folder = HERE / "gemma-scope" / release / "layer_1" / "width_16" / "average_l0_5"
    folder.mkdir(parents=True)
    sizes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,), "threshold": (N,)}
    arrays = {name: 0.6 * torch.randn(size) for name, size in sizes.items()}
    # Those of the release are not negative.
    arrays["threshold"] = arrays["threshold"].abs()
    np.savez(folder / "params.npz", **{name: value.numpy() for name, value in arrays.items()})
    x = torch.randn(3, 4, D)
    if transcodes:
        one = load_gemma_scope_transcoder(str(folder / "params.npz"), 1, device=CPU)
        latents = one.encode(x)
        output = one.decode(latents)
    else:
        one = JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=N, apply_b_dec_to_input=False))
        one.load_state_dict(arrays)
        latents = one.encode(x)
        output = one.decode(latents)
    save(folder / "expected.safetensors", x, latents, output)


def gemma_scope_2(name: str, *, skip: bool) -> None:
    folder = HERE / "gemma-scope-2" / name
    folder.mkdir(parents=True)
    sizes = {"w_enc": (D, N), "w_dec": (N, D), "b_enc": (N,), "b_dec": (D,), "threshold": (N,)}
    sizes |= {"affine_skip_connection": (D, D)} if skip else {}
    arrays = {key: 0.6 * torch.randn(size) for key, size in sizes.items()}
    arrays["threshold"] = arrays["threshold"].abs()
    save_file(arrays, folder / "params.safetensors")
    point = "model.layers.1.{}_feedforward_layernorm.output"
    config = {
        "architecture": "jump_relu",
        "model_name": "tiny",
        "hf_hook_point_in": point.format("pre"),
        "hf_hook_point_out": point.format("post"),
        "affine_connection": skip,
    }
    (folder / "config.json").write_text(json.dumps(config))
    one = load_gemma_scope_2_transcoder(str(folder / "params.safetensors"), 1, device=CPU)
    x = torch.randn(3, 4, D)
    latents = one.encode(x)
    save(folder / "expected.safetensors", x, latents, one.decode(latents, x))


def main() -> None:
    torch.manual_seed(0)
    for name in ("circuit-tracer", "sparsify", "gemma-scope", "gemma-scope-2"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    relu = torch.nn.functional.relu
    circuit_tracer("relu", [relu, relu], skip=False)
    circuit_tracer("skip", [relu], skip=True)
    circuit_tracer("jumprelu", [JumpReLU(torch.randn(N), 0.1)], skip=False)
    circuit_tracer("topk", [TopK(4)], skip=False, activation="topk", k=4)
    sparsify("layers.0")
    sparsify("layers.1.mlp", transcode=True)
    sparsify("layers.2.mlp", transcode=True, skip_connection=True)
    sparsify("layers.3.self_attn", normalize_decoder=False)
    gemma_scope("gemma-scope-tiny-transcoders", transcodes=True)
    gemma_scope("gemma-scope-tiny-res", transcodes=False)
    gemma_scope_2("transcoder", skip=False)
    gemma_scope_2("transcoder_affine", skip=True)


if __name__ == "__main__":
    main()
