"""Sweeps equal one hooked run per patch, in every mode and at every kind of position."""

from dataclasses import replace

import pytest
import torch

from circuitfind.errors import PromptError
from circuitfind.metrics import find_metric
from circuitfind.patching.pairs import interchanged, partners_of
from circuitfind.patching.sweep import patch
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from tests.engine.problems import EXACT, model_of
from tests.oracles.checkpoints import D_VOCAB, build
from tests.patching.hooked import Hooked, n_heads

SITES = ("resid_pre", "resid_post", "attn_out", "mlp_out", "head", "q", "k", "v")
FAMILIES = ("gpt2", "llama")
N_LAYERS = 2


def prompts():
    """Four pairs of two lengths, with a named position that moves."""
    generator = torch.Generator().manual_seed(5)
    pairs = []
    for row, length in enumerate((4, 5, 4, 5)):
        clean, corrupted = torch.randint(3, D_VOCAB, (2, length), generator=generator).tolist()
        corrupted[0] = clean[0]
        right, wrong = torch.randperm(D_VOCAB, generator=generator)[:2].tolist()
        positions = {"subject": 1 + row // 2, "end": length - 1}
        pairs.append(Pair(clean, corrupted, [[right]], [[wrong]], positions=positions))
    return collate(pairs)


def logit_differences(logits, tokens):
    """Return each prompt's logit difference at its last position."""
    rows = range(len(tokens))
    last = logits[rows, tokens.lengths - 1]
    return last[rows, tokens.answers[:, 0, 0]] - last[rows, tokens.wrong_answers[:, 0, 0]]


def masks(tokens, positions):
    n = tokens.clean.shape[1]
    columns = torch.arange(n)
    if positions == "each":
        return [(columns == index)[None].expand(len(tokens), n) for index in range(n)]
    if positions == "last":
        return [columns == tokens.lengths[:, None] - 1]
    if positions == "all":
        return [torch.ones_like(tokens.clean).bool()]
    return [columns == tokens.positions[name][:, None] for name in positions.split(",")]


def expected_values(family, site, base, source, tokens, positions):
    """Return the metric after each patch, patch by patch: [layer position head? batch]."""
    hooked = Hooked(build(family, n_layers=N_LAYERS), family)
    heads = n_heads(site, family)
    values = []
    for layer in range(N_LAYERS):
        foreign = hooked.read(source, site, layer)
        for mask in masks(tokens, positions):
            for head in range(max(heads, 1)):

                def change(own, foreign=foreign, mask=mask, head=head):
                    where = mask[:, :, None]
                    if heads:
                        where = where[..., None] & (torch.arange(heads) == head)[:, None]
                    return torch.where(where, foreign, own)

                values.append(logit_differences(hooked.run(base, {(site, layer): change}), tokens))
    shape = (N_LAYERS, len(masks(tokens, positions)), *((heads,) if heads else ()), len(tokens))
    return torch.stack(values).view(shape)


@pytest.mark.parametrize(
    ("mode", "positions"),
    [
        ("denoising", "each"),
        ("denoising", "last"),
        ("noising", "all"),
        ("noising", "subject,end"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_equal_hooked_runs(family, mode, positions):
    tokens = prompts()
    problem = assemble(model_of(family), tokens, find_metric("logit-difference"))
    found = patch(problem, ",".join(SITES), mode=mode, positions=positions)
    base, source = tokens.corrupted, tokens.clean
    if mode == "noising":
        base, source = source, base
    for site in SITES if positions == "subject,end" else ("resid_pre", "head", "v"):
        expected = expected_values(family, site, base, source, tokens, positions)
        torch.testing.assert_close(found.values[site], expected, **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interchange_within_takes_activations_of_another_clean_prompt(family):
    tokens = prompts()
    problem = assemble(model_of(family), tokens, find_metric("logit-difference"))
    partners = [2, 3, 0, 1]
    found = patch(
        problem, "attn_out,v", mode="interchange-within", positions="all", partners=partners
    )
    against = tokens.answers[partners]
    tokens.wrong_answers.copy_(against)
    for site in ("attn_out", "v"):
        base, source = tokens.clean, tokens.clean[partners]
        expected = expected_values(family, site, base, source, tokens, "all")
        torch.testing.assert_close(found.values[site], expected, **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_interchange_exchanges_the_prompts_of_each_pair_both_ways(family):
    tokens = prompts()
    problem = assemble(model_of(family), tokens, find_metric("logit-difference"))
    found = patch(problem, "attn_out,v", mode="interchange", positions="subject,end")
    turned = replace(tokens, answers=tokens.wrong_answers, wrong_answers=tokens.answers)
    for site in ("attn_out", "v"):
        ways = ((tokens.clean, tokens.corrupted, tokens), (tokens.corrupted, tokens.clean, turned))
        expected = [expected_values(family, site, *way, "subject,end") for way in ways]
        torch.testing.assert_close(found.values[site], torch.cat(expected, dim=-1), **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_middle_of_a_block_is_the_stream_before_it_and_what_attention_adds(family):
    tokens = prompts()
    problem = assemble(model_of(family), tokens, find_metric("logit-difference"))
    found = patch(problem, "resid_mid", positions="each").mean("resid_mid")
    hooked = Hooked(build(family, n_layers=N_LAYERS), family)
    clean, corrupted = tokens.clean, tokens.corrupted
    for layer in range(N_LAYERS):
        parts = [
            hooked.read(run, site, layer)
            for run in (clean, corrupted)
            for site in ("resid_pre", "attn_out")
        ]
        middle, entering = parts[0] + parts[1], parts[2]
        for at, mask in enumerate(masks(tokens, "each")):

            def change(own, mask=mask, middle=middle, entering=entering):
                return torch.where(mask[:, :, None], middle - entering, own)

            logits = hooked.run(corrupted, {("attn_out", layer): change})
            expected = logit_differences(logits, tokens).mean()
            torch.testing.assert_close(found[layer, at], expected, **EXACT)


def pairs_of_lengths(*lengths):
    return collate(
        [
            Pair([3 + row] * n, [1] * n, [[10 + row]], positions={"end": n - 1})
            for row, n in enumerate(lengths)
        ]
    )


def test_a_partner_is_the_next_prompt_of_its_length():
    assert partners_of(pairs_of_lengths(3, 4, 3, 4, 3)).tolist() == [2, 3, 4, 1, 0]


def test_a_partner_of_the_same_template_goes_first():
    pairs = pairs_of_lengths(3, 3, 3, 3)
    alternating = replace(pairs, template=torch.tensor([0, 1, 0, 2]))
    assert partners_of(alternating).tolist() == [2, 2, 0, 0]


def test_a_prompt_without_its_like_is_left_out():
    pairs = pairs_of_lengths(3, 4, 3)
    assert partners_of(pairs).tolist() == [2, -1, 0]
    found = interchanged(pairs, partners_of(pairs))
    assert found.clean[:, 0].tolist() == [3, 5]
    assert found.corrupted[:, 0].tolist() == [5, 3]
    assert found.wrong_answers[:, 0, 0].tolist() == [12, 10]


def test_prompts_with_one_answer_cannot_be_interchanged_within_their_kind():
    pairs = pairs_of_lengths(3, 3)
    same = replace(pairs, answers=torch.full_like(pairs.answers, 2))
    with pytest.raises(PromptError, match="none of the 2 prompts has another"):
        partners_of(same)


@pytest.mark.parametrize(
    ("partners", "said"),
    [
        ([1, 0], "2 partners for 3 prompts"),
        ([2, 0, 0], "prompt 1 cannot be"),
        ([0, 2, 1], "prompt 0"),
    ],
)
def test_partners_that_do_not_fit_are_refused(partners, said):
    with pytest.raises(PromptError, match=said):
        interchanged(pairs_of_lengths(3, 4, 3), torch.tensor(partners))
