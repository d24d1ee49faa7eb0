"""Time activation-patching sweeps against TransformerLens' own, patch by patch.

    python -m benchmarks.patching [--layers 12] [--heads 12] [--width 768] [--prompts 16] ...

The model has GPT-2's architecture and random weights, so nothing is downloaded. TransformerLens
runs the whole model once per patch, so its time per patch is taken from some of the patches
(`--sample`), spread over the layers; ours from the whole sweep, so sweeps of more than `--most`
patches are left out. Prints milliseconds per patch and their ratio.
"""

import argparse
import copy
import math
import time

import pandas
import torch
import transformers
from transformer_lens import patching as lens
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.setting import Size, random_gpt2, random_pairs

SWEEPS = (
    ("resid_pre", "each", "resid_pre", lens.layer_pos_patch_setter, ("layer", "pos")),
    ("mlp_out", "each", "mlp_out", lens.layer_pos_patch_setter, ("layer", "pos")),
    ("head", "all", "z", lens.layer_head_vector_patch_setter, ("layer", "head")),
    ("v", "all", "v", lens.layer_head_vector_patch_setter, ("layer", "head")),
    ("pattern", "all", "pattern", lens.layer_head_pattern_patch_setter, ("layer", "head")),
    ("head", "each", "z", lens.layer_pos_head_vector_patch_setter, ("layer", "pos", "head")),
)


def main() -> None:
    """Run every sweep, print a row for each, and write docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (
        ("layers", 12),
        ("heads", 12),
        ("width", 768),
        ("prompts", 16),
        ("tokens", 16),
        ("sample", 24),
        ("most", 1000),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    default = vars(options) == {name: parser.get_default(name) for name in vars(options)}
    size = Size(
        n_layers=options.layers,
        n_heads=options.heads,
        d_model=options.width,
        n_prompts=options.prompts,
        n_tokens=options.tokens,
    )
    model, pairs = random_gpt2(size), random_pairs(size)
    bridge = bridge_of(copy.deepcopy(model))
    problem = cf.make_problem(cf.load_model(model), pairs, metric="logit-difference")
    _, cache = bridge.run_with_cache(pairs.clean)
    rows = ["| site | positions | patches | TransformerLens' time / ours |", "|---|---|---|---|"]
    print(rows[0])
    for site, positions, name, setter, axes in SWEEPS:
        sizes = {"layer": options.layers, "pos": options.tokens, "head": options.heads}
        if math.prod(sizes[axis] for axis in axes) > options.most:
            continue
        started = time.perf_counter()
        found = cf.patch(problem, site, positions=positions).values[site][..., 0]
        ours = (time.perf_counter() - started) / found.numel()
        every = lens.make_df_from_ranges([sizes[axis] for axis in axes], axes)
        chosen = every.iloc[:: max(1, len(every) // options.sample)].reset_index(drop=True)
        theirs = lens_seconds(bridge, pairs, cache, name, setter, chosen)
        rows.append(f"| `{site}` | {positions} | {found.numel()} | {theirs / ours:.1f}x |")
        print(f"{rows[-1]} {1e3 * theirs:.1f} ms, {1e3 * ours:.1f} ms", flush=True)
    if default:
        write_block("patching", "\n".join(rows))


def bridge_of(model: transformers.GPT2LMHeadModel) -> TransformerBridge:
    """Wrap the same weights for TransformerLens' functions."""
    return build_bridge_from_module(
        model,
        architecture="GPT2LMHeadModel",
        hf_config=model.config,
        tokenizer=None,
        dtype=torch.float32,
        device="cpu",
    )


def lens_seconds(bridge, pairs, cache, name, setter, chosen: pandas.DataFrame) -> float:
    """Return the seconds that TransformerLens takes for a patch, the mean of some patches."""

    def metric(logits: torch.Tensor) -> torch.Tensor:
        last = logits[:, -1]
        rows = range(len(last))
        return (
            last[rows, pairs.answers[:, 0, 0]] - last[rows, pairs.wrong_answers[:, 0, 0]]
        ).mean()

    started = time.perf_counter()
    with torch.no_grad():
        lens.generic_activation_patch(
            bridge, pairs.corrupted, cache, metric, setter, name, index_df=chosen
        )
    return (time.perf_counter() - started) / len(chosen)


if __name__ == "__main__":
    main()
