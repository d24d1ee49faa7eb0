"""Time auto-circuit's ACDC on a setting: single tests of edges, sampled over all layers.

    python -m benchmarks.auto_circuit_worker FOLDER [--sample EDGE ...]

Runs in an environment of its own (`versus.py` makes it), because auto-circuit needs the
HookedTransformer that TransformerLens 4 no longer has. A test is what its ACDC does for every edge:
set the edge's patch mask, run the model from the edge's layer on, take the KL divergence.
Prints one JSON object.
"""

# ruff: noqa: E402 - names must be in place before auto-circuit looks for them.

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import transformer_lens
from transformer_lens.cache import key_value_cache

# auto-circuit imports a class by the name and from the places where TransformerLens 2 had it.
for _place in (key_value_cache, transformer_lens):
    _place.HookedTransformerKeyValueCache = key_value_cache.TransformerLensKeyValueCache
sys.modules["transformer_lens.past_key_value_caching"] = key_value_cache

from auto_circuit.utils.ablation_activations import src_ablations
from auto_circuit.utils.graph_utils import patch_mode, patchable_model, set_all_masks
from auto_circuit.utils.tensor_ops import multibatch_kl_div
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel

from benchmarks.memory import peak, resident

_PER_LAYER = 3
"""How many edges are timed in each layer, after one to warm up."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", nargs="*", default=[])
    given = parser.parse_args()
    model = patchable_model(
        load(given.folder),
        factorized=True,
        separate_qkv=True,
        slice_output="last_seq",
        device=torch.device("cpu"),
    )
    loaded = resident()
    prompts = json.loads((given.folder / "prompts.json").read_text())
    clean, corrupted = torch.tensor(prompts["clean"]), torch.tensor(prompts["corrupted"])
    print(json.dumps(measure(model, clean, corrupted, given.sample, loaded)))


def load(folder: Path) -> HookedTransformer:
    """Load the weights into the class that auto-circuit takes."""
    hugging_face = GPT2LMHeadModel.from_pretrained(folder)
    sizes = hugging_face.config
    config = HookedTransformerConfig(
        n_layers=sizes.n_layer,
        n_heads=sizes.n_head,
        d_model=sizes.n_embd,
        d_head=sizes.n_embd // sizes.n_head,
        d_mlp=4 * sizes.n_embd,
        d_vocab=sizes.vocab_size,
        n_ctx=sizes.n_positions,
        act_fn="gelu_new",
        normalization_type="LN",
        use_attn_result=True,
        use_split_qkv_input=True,
        use_hook_mlp_in=True,
        device="cpu",
    )
    model = HookedTransformer(config)
    model.load_state_dict(convert_gpt2_weights(hugging_face, config), strict=False)
    return model.eval()


def measure(model, clean, corrupted, sample, loaded):
    """Time tests in every layer and return the effects of the sampled edges."""
    instead, written = src_ablations(model, corrupted), src_ablations(model, clean)
    by_layer = {}
    for edge in sorted(model.edges, key=_name):
        by_layer.setdefault(_start(edge), []).append(edge)
    wanted = {_name(edge): edge for edge in model.edges if _name(edge) in set(sample)}
    with torch.inference_mode():
        reference = model(clean)[model.out_slice].log_softmax(-1)
        _, tokens, positions, attention = model.input_to_embed(clean)
        _, cache = model.run_with_cache(clean)
        streams = [cache[f"blocks.{i}.hook_resid_pre"].clone() for i in range(model.cfg.n_layers)]
        del cache
    set_all_masks(model, val=0.0)

    def test(edge) -> float:
        edge.patch_mask(model).data[edge.patch_idx] = 1.0
        start = _start(edge)
        with torch.inference_mode():
            out = model(
                streams[start],
                start_at_layer=start,
                tokens=tokens,
                shortformer_pos_embed=positions,
                attention_mask=attention,
            )[model.out_slice]
        divergence = multibatch_kl_div(out.log_softmax(-1), reference).item()
        edge.patch_mask(model).data[edge.patch_idx] = 0.0
        return divergence

    seconds = {}
    with patch_mode(model, instead, curr_src_outs=written):
        for layer, edges in by_layer.items():
            step = max(1, len(edges) // (_PER_LAYER + 1))
            chosen = edges[::step][: _PER_LAYER + 1]
            times = [_timed(test, edge) for edge in chosen][1:]
            seconds[layer] = statistics.median(times)
        effects = {name: test(edge) for name, edge in wanted.items()}
    total = sum(seconds[layer] * len(edges) for layer, edges in by_layer.items())
    return {
        "edges": len(model.edges),
        "seconds_by_layer": seconds,
        "seconds_per_test": total / len(model.edges),
        "seconds": total,
        "peak_above_model": peak() - loaded,
        "effects": effects,
    }


def _timed(test, edge) -> float:
    started = time.perf_counter()
    test(edge)
    return time.perf_counter() - started


def _start(edge) -> int:
    """Return the layer at which auto-circuit's ACDC starts the model for an edge."""
    return int(edge.dest.module_name.split(".")[1])


def _name(edge) -> str:
    """Return our name of an edge."""
    return f"{_component(edge.src.name)}->{_component(edge.dest.name)}"


def _component(name: str) -> str:
    if name.startswith("Resid"):
        return "embed" if name.endswith("Start") else "logits"
    if name.startswith("MLP"):
        return f"m{name.removeprefix('MLP').strip()}"
    layer, head, *port = name[1:].split(".")
    return ".".join([f"a{layer}", f"h{head}", *(p.lower() for p in port)])


if __name__ == "__main__":
    main()
