"""Every sweep is that of `transformer_lens.patching`, on a bridge of the same weights."""

from functools import cache

import pytest
import torch
from transformer_lens import patching as lens
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from circuitfind.patching.sites import GROUPS
from circuitfind.patching.sweep import patch
from tests.engine.problems import problem_of, prompts_of
from tests.oracles.checkpoints import build

CLOSE = {"rtol": 0, "atol": 1e-5}
"""TransformerLens stores results in float32."""

FAMILIES = ("gpt2", "gpt-neox-parallel", "llama", "gemma2")
LENGTHS = (4, 4)

# Site, positions, TransformerLens' function, and its axes in our order.
SWEEPS = {
    "resid_pre": ("resid_pre", "each", lens.get_act_patch_resid_pre, None),
    "resid_mid": ("resid_mid", "each", lens.get_act_patch_resid_mid, None),
    "attn_out": ("attn_out", "each", lens.get_act_patch_attn_out, None),
    "mlp_out": ("mlp_out", "each", lens.get_act_patch_mlp_out, None),
    "head_by_pos": ("head", "each", lens.get_act_patch_attn_head_out_by_pos, None),
    "q_by_pos": ("q", "each", lens.get_act_patch_attn_head_q_by_pos, None),
    "k_by_pos": ("k", "each", lens.get_act_patch_attn_head_k_by_pos, None),
    "v_by_pos": ("v", "each", lens.get_act_patch_attn_head_v_by_pos, None),
    "pattern_by_pos": ("pattern", "each", lens.get_act_patch_attn_head_pattern_by_pos, (0, 2, 1)),
    "pattern_dest_src": (
        "pattern_cell",
        "each",
        lens.get_act_patch_attn_head_pattern_dest_src_pos,
        None,
    ),
    "head_all_pos": ("head", "all", lens.get_act_patch_attn_head_out_all_pos, "all"),
    "q_all_pos": ("q", "all", lens.get_act_patch_attn_head_q_all_pos, "all"),
    "k_all_pos": ("k", "all", lens.get_act_patch_attn_head_k_all_pos, "all"),
    "v_all_pos": ("v", "all", lens.get_act_patch_attn_head_v_all_pos, "all"),
    "pattern_all_pos": ("pattern", "all", lens.get_act_patch_attn_head_pattern_all_pos, "all"),
}


@cache
def lens_inputs(family):
    """Return a bridge, the corrupted tokens, the clean run's cache and the metric."""
    model = build(family, n_layers=2)
    bridge = build_bridge_from_module(
        model,
        architecture=type(model).__name__,
        hf_config=model.config,
        tokenizer=None,
        dtype=torch.float64,
        device="cpu",
    )
    prompts = prompts_of(lengths=LENGTHS)
    _, cache_of_clean = bridge.run_with_cache(prompts.clean)

    def metric(logits):
        rows = zip(logits[:, -1], prompts.answers[:, 0], prompts.wrong_answers[:, 0], strict=True)
        differences = [row[right].mean() - row[wrong].mean() for row, right, wrong in rows]
        return torch.stack(differences).mean()

    return bridge, prompts.corrupted, cache_of_clean, metric


def cases():
    for family in FAMILIES:
        for sweep, (site, *_) in SWEEPS.items():
            # Parallel blocks have no such stream. On GPT-2's bridge the hook of TransformerLens 4.3
            # reaches what the MLP reads, not the stream; test_brute_force.py has that case.
            if site == "resid_mid" and family in ("gpt-neox-parallel", "gpt2"):
                continue
            yield family, sweep


@pytest.mark.parametrize(("family", "sweep"), list(cases()))
def test_a_sweep_is_that_of_transformer_lens(family, sweep):
    site, positions, of_lens, order = SWEEPS[sweep]
    expected = of_lens(*lens_inputs(family))
    if isinstance(order, tuple):
        expected = expected.permute(order)
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    found = patch(problem, site, positions=positions).mean(site)
    if order == "all":
        found = found[:, 0]
    torch.testing.assert_close(found, expected.double(), **CLOSE)
    assert found.std() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_are_what_transformer_lens_stacks(family):
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    stacks = (
        ("block", "each", lens.get_act_patch_block_every),
        ("heads", "all", lens.get_act_patch_attn_head_all_pos_every),
        ("heads", "each", lens.get_act_patch_attn_head_by_pos_every),
    )
    for group, positions, every in stacks:
        found = patch(problem, group, positions=positions)
        assert found.sites == GROUPS[group]
        for name, expected in zip(GROUPS[group], every(*lens_inputs(family)), strict=True):
            means = found.mean(name)
            if positions == "all":
                means = means[:, 0]
            # TransformerLens fills the rows of missing key/value heads with zeros.
            n = means.shape[-1]
            torch.testing.assert_close(means, expected[..., :n].double(), **CLOSE)
