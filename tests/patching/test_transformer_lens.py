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


def problem_for(family):
    return problem_of(family, metric="logit-difference", lengths=LENGTHS)


STACKS = (
    ("block", "each", lens.get_act_patch_block_every),
    ("heads", "all", lens.get_act_patch_attn_head_all_pos_every),
    ("heads", "each", lens.get_act_patch_attn_head_by_pos_every),
)
"""These call thirteen of the fifteen sweeps; the other two follow below."""


@pytest.mark.parametrize("stack", STACKS, ids=["block", "all_pos", "by_pos"])
@pytest.mark.parametrize("family", FAMILIES)
def test_groups_are_what_transformer_lens_stacks(family, stack):
    group, positions, every = stack
    found = patch(problem_for(family), group, positions=positions)
    assert found.sites == GROUPS[group]
    for name, expected in zip(GROUPS[group], every(*lens_inputs(family)), strict=True):
        means = found.mean(name)
        if positions == "all":
            means = means[:, 0]
        # TransformerLens fills the rows of missing key/value heads with zeros.
        n = means.shape[-1]
        torch.testing.assert_close(means, expected[..., :n].double(), **CLOSE)
        assert means.std() > 0.01
    stacked, axes = found.stacked()
    assert axes[:2] == ("site", "layer")
    everything = every(*lens_inputs(family)).double()
    stacked = stacked[:, :, 0] if positions == "all" else stacked
    torch.testing.assert_close(stacked.nan_to_num(0.0), everything, **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_middle_of_blocks_is_that_of_transformer_lens_without_gradients(family):
    # Parallel blocks have no such stream.
    with torch.no_grad():
        expected = lens.get_act_patch_resid_mid(*lens_inputs(family))
    found = patch(problem_for(family), "resid_mid", positions="each").mean("resid_mid")
    torch.testing.assert_close(found, expected.double(), **CLOSE)


def test_with_gradients_transformer_lens_patches_what_the_mlp_reads_instead():
    # It clones an activation that requires a gradient, so the patch does not reach the stream.
    expected = lens.get_act_patch_resid_mid(*lens_inputs("gpt2"))
    found = patch(problem_for("gpt2"), "resid_mid,mlp_out", positions="each")
    torch.testing.assert_close(found.mean("mlp_out"), expected.double(), **CLOSE)
    assert (found.mean("resid_mid") - expected).abs().max() > 0.01


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_cells_of_patterns_are_those_of_transformer_lens(family):
    expected = lens.get_act_patch_attn_head_pattern_dest_src_pos(*lens_inputs(family))
    found = patch(problem_for(family), "pattern_cell", positions="each").mean("pattern_cell")
    torch.testing.assert_close(found, expected.double(), **CLOSE)
