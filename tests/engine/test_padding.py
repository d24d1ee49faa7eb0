"""Prompts of unequal lengths: a batch of them is each of them alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import circuitfind as cf
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.replacement import mean_over_prompts, replacement
from circuitfind.errors import PromptError
from circuitfind.metrics import find_metric
from circuitfind.models.compiled import CompiledModel, load_compiled
from circuitfind.problem import Problem, assemble
from circuitfind.prompts import Pair, collate
from tests.engine.problems import (
    BRIDGED,
    EXACT,
    engine_of,
    logits_at_steps,
    oracle_of,
    problem_of,
    random_mask,
)

LENGTHS = (6, 3, 5)
CAUSAL = [name for name in BRIDGED if name != "bidirectional"]


@pytest.mark.parametrize(
    ("family", "ablation"),
    [
        ("bidirectional", "resample"),
        ("bidirectional", "zero"),
        *((family, ("resample", "zero")[number % 2]) for number, family in enumerate(CAUSAL)),
    ],
)
def test_a_batch_of_unequal_lengths_is_each_prompt_alone(family, ablation):
    problem = problem_of(family, ablation, lengths=LENGTHS)
    assert problem.prompts.padded
    assert_same_as_one_by_one(problem)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_so_it_is_for_compiled_models(attention, ablation, tmp_path):
    tokens = torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(0)).tolist()
    pairs = [
        Pair(row[:n], [(token + 1) % 5 for token in row[:n]], answers=[[1]], wrong_answers=[[0]])
        for row, n in zip(tokens, LENGTHS, strict=True)
    ]
    model = random_compiled(tmp_path / "random.json", attention)
    assert_same_as_one_by_one(assemble(model, collate(pairs), find_metric("l2"), ablation))


@pytest.mark.parametrize("family", ["bidirectional", "llama", "gpt-j"])
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean-over-positions"])
def test_a_padded_batch_agrees_with_the_oracle(family, ablation):
    engine = engine_of(family, ablation, lengths=LENGTHS)
    oracle = oracle_of(family, ablation, lengths=LENGTHS)
    kept = random_mask(engine.graph, seed=4, share=0.6)
    expected = engine.problem.prompts.at_steps(oracle.logits(kept))
    found = logits_at_steps(engine, engine.recomputed(kept))
    torch.testing.assert_close(found, expected, **EXACT)


def test_means_leave_padding_out():
    problem = problem_of("gpt2", "mean-over-positions", lengths=LENGTHS)
    written = carried(problem_of("gpt2", "resample", lengths=LENGTHS))
    real = torch.cat([written[:, row, :length] for row, length in enumerate(LENGTHS)], dim=1)
    expected = real.mean(1)[:, None, None].expand_as(written)
    torch.testing.assert_close(carried(problem), expected, **EXACT)


def test_means_position_by_position_need_prompts_of_one_length():
    with pytest.raises(PromptError, match="'mean' averages position by position.*unequal lengths"):
        problem_of("gpt2", "mean", lengths=LENGTHS)


# ------------------------------------------------------------------------------- helpers


def carried(problem: Problem) -> Tensor:
    """What each writer's cut edges carry."""
    return replacement(problem, mean_over_prompts([problem])).of_all(*problem.prompts.clean.shape)


def assert_same_as_one_by_one(problem: Problem) -> None:
    """Compare a batch with its rows, from scratch and after a few cuts, at the metric's steps."""
    batch = IncrementalEngine(problem)
    kept = random_mask(problem.graph, seed=3, share=0.7)
    cuts = random_mask(problem.graph, seed=5, share=0.2).nonzero().tolist()
    cuts = [(writer, reader) for writer, reader in cuts]
    together = batch.cut(batch.start_from(kept), cuts).final
    losses = batch.readout.values(together)
    for row in range(len(problem.prompts)):
        alone = IncrementalEngine(
            Problem(
                problem.model,
                problem.graph,
                problem.prompts.select([row]),
                problem.metric,
                problem.ablation,
            )
        )
        cut = alone.cut(alone.start_from(kept), cuts).final
        for found, expected in (
            (together, cut),
            (batch.recomputed(kept), alone.recomputed(kept)),
        ):
            torch.testing.assert_close(
                logits_at_steps(batch, found)[row : row + 1],
                logits_at_steps(alone, expected),
                **EXACT,
            )
        torch.testing.assert_close(losses[row : row + 1], alone.readout.values(cut), **EXACT)


def random_compiled(path: Path, attention: str) -> CompiledModel:
    """A model in the compiled format with random weights: two layers of two heads and an MLP."""
    generator = torch.Generator().manual_seed(0)
    heads, d_model, d_head, d_mlp = 2, 8, 4, 6
    shapes = {
        "embed.W_E": (5, d_model),
        "pos_embed.W_pos": (6, d_model),
        "unembed.W_U": (d_model, 5),
    }
    for layer in range(2):
        block = f"blocks.{layer}"
        shapes |= {f"{block}.attn.W_{port}": (heads, d_model, d_head) for port in "QKV"}
        shapes |= {f"{block}.attn.b_{port}": (heads, d_head) for port in "QKV"}
        shapes |= {f"{block}.attn.W_O": (heads, d_head, d_model), f"{block}.attn.b_O": (d_model,)}
        shapes |= {f"{block}.mlp.W_in": (d_model, d_mlp), f"{block}.mlp.b_in": (d_mlp,)}
        shapes |= {f"{block}.mlp.W_out": (d_mlp, d_model), f"{block}.mlp.b_out": (d_model,)}
    weights = {
        name: 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    sizes = {
        "n_layers": 2,
        "n_heads": heads,
        "d_model": d_model,
        "d_head": d_head,
        "d_mlp": d_mlp,
        "n_ctx": 6,
        "d_vocab": 5,
        "d_vocab_out": 5,
        "activation": "gelu",
        "attention": attention,
        "attention_scale": 2.0,
    }
    cf.save_compiled(path, weights, **sizes)
    return load_compiled(path, "cpu", None)
