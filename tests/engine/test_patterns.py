"""Attention patterns are those that Hugging Face models report of themselves."""

from dataclasses import replace

import pytest
import torch

from circuitfind.engine.full_pass import embeddings, full_pass, plain_pass
from circuitfind.engine.patterns import attention_patterns
from circuitfind.engine.replacement import mean_over_prompts, replacement
from circuitfind.granularity import heads_and_mlps
from circuitfind.problem import Problem
from tests.engine.problems import EXACT, N_LAYERS, problem_of
from tests.oracles.checkpoints import build

# One of every kind of attention: learned, rotary, interleaved rotary and alibi positions, grouped
# heads, windows, soft caps, TransformerLens' own modules in both directions.
FAMILIES = (
    "gpt2",
    "llama",
    "gpt-j",
    "bloom",
    "mistral-window",
    "gemma2",
    "attention-only",
    "bidirectional",
)
LONGER_THAN_A_HEAD = (19, 19)


def reported(family, tokens):
    """Return the patterns that the model's own forward pass reports, one tensor a layer."""
    model = build(family, 0, n_layers=N_LAYERS)
    with torch.no_grad():
        if not hasattr(model, "config"):  # TransformerLens' own modules
            _, cache = model.run_with_cache(tokens)
            return [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(N_LAYERS)]
        model.set_attn_implementation("eager")
        return model(tokens, output_attentions=True).attentions


def patterns_of(problem: Problem, run, layer):
    block = problem.graph.block_of[f"a{layer}.h0"]
    return attention_patterns(problem.model, problem.graph, run, block, problem.prompts.real)


def clean_run(problem: Problem):
    return plain_pass(problem.model, problem.graph, problem.prompts.clean, keep_reads=True)


def run_with(problem: Problem, kept):
    model, graph, tokens = problem.model, problem.graph, problem.prompts.clean
    carried = replacement(problem, mean_over_prompts([problem]))
    embedding = embeddings(model, graph, tokens)
    written = carried.of_all(*tokens.shape)
    return full_pass(model, graph, embedding, written, kept.double(), keep_reads=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pattern_is_the_one_that_the_model_reports(family):
    problem = problem_of(family)
    run = clean_run(problem)
    expected = reported(family, problem.prompts.clean)
    for layer in range(N_LAYERS):
        found = patterns_of(problem, run, layer)
        torch.testing.assert_close(found.transpose(0, 1), expected[layer], **EXACT)


def test_prompts_may_be_longer_than_a_head_is_wide():
    problem = problem_of("gpt2", lengths=LONGER_THAN_A_HEAD)
    assert LONGER_THAN_A_HEAD[0] % problem.graph.shape.d_head
    expected = reported("gpt2", problem.prompts.clean)
    found = patterns_of(problem, clean_run(problem), 1)
    torch.testing.assert_close(found.transpose(0, 1), expected[1], **EXACT)


def test_merged_ports_give_the_same_patterns():
    problem = problem_of("gpt2")
    merged = replace(problem, graph=heads_and_mlps(problem.graph.shape, merge_qkv=True))
    torch.testing.assert_close(
        patterns_of(merged, clean_run(merged), 1),
        patterns_of(problem, clean_run(problem), 1),
        **EXACT,
    )


def test_with_every_edge_cut_heads_look_where_they_look_on_the_corrupted_prompt():
    problem = problem_of("llama")
    found = patterns_of(problem, run_with(problem, torch.zeros_like(problem.graph.edge_mask)), 1)
    expected = reported("llama", problem.prompts.corrupted)[1]
    torch.testing.assert_close(found.transpose(0, 1), expected, **EXACT)


def test_a_cut_query_moves_the_attention_of_its_head_alone():
    problem = problem_of("gpt2")
    clean = patterns_of(problem, clean_run(problem), 1)
    kept = problem.graph.edge_mask.clone()
    kept[:, problem.graph.reader_index["a1.h2.q"]] = False
    found = patterns_of(problem, run_with(problem, kept), 1)
    moved = [head for head in range(len(clean)) if not torch.allclose(found[head], clean[head])]
    assert moved == [2]
