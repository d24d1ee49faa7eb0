"""Ablations from outside the package: the same answer everywhere, or an error before anything."""

import math
from base64 import b64decode
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitfind as cf
from circuitfind.ablations import ABLATIONS, Ablation, clean, corrupted
from circuitfind.comparison.effects import effects
from circuitfind.engine.checks import check_limits
from circuitfind.engine.full_pass import embeddings, full_pass
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.patterns import attention_patterns
from circuitfind.errors import MethodError, PromptError
from circuitfind.evaluation.measured import Measured
from circuitfind.methods.attribution import Limits, Place, attribute
from circuitfind.problem import Problem
from circuitfind.reports.page.attention import stored_patterns
from circuitfind.reports.page.patterns import attention_data
from tests.engine.problems import EXACT, loss_of, problem_of, random_mask
from tests.evaluation.test_measured import in_chunks
from tests.oracles import search
from tests.oracles.brute_force import BruteForce, writer_outputs
from tests.oracles.checkpoints import build
from tests.oracles.slopes import attribution
from tests.type_checks import types_checked


def turned_round(prompts):
    """Every corrupted prompt from its end to its beginning."""
    lengths = prompts.lengths[:, None]
    places = torch.arange(prompts.corrupted.shape[1])[None]
    turned = torch.where(places < lengths, lengths - 1 - places, places)
    return prompts.corrupted.gather(1, turned)


OUTSIDE = (
    Ablation("half", ((0.5, corrupted),)),
    Ablation("between", ((0.25, clean), (0.75, corrupted))),
    Ablation("mean-of-clean", ((1.0, clean),), ("batch", "pos")),
    Ablation("own-mean", ((1.0, corrupted),), ("pos",)),
    Ablation("turned-round", ((1.0, turned_round),)),
)
FAMILIES = ("gpt2", "gemma2")
EVERYWHERE = pytest.mark.parametrize("ablation", OUTSIDE, ids=lambda ablation: ablation.name)


@EVERYWHERE
@pytest.mark.parametrize("family", FAMILIES)
def test_circuits_are_the_oracles_from_scratch_in_cuts_and_in_evaluations(family, ablation):
    problem, oracle = asked(family, ablation)
    engine, metered = IncrementalEngine(problem), Measured(problem)
    for seed in (1, 2):
        kept = random_mask(engine.graph, seed, share=0.6)
        expected = loss_of("kl", oracle, problem.prompts)(oracle.logits(kept))
        assert engine.readout.loss(engine.recomputed(kept)) == pytest.approx(expected, abs=1e-9)
        assert engine.loss(engine.start_from(kept)) == pytest.approx(expected, abs=1e-9)
        assert float(metered.values([kept])["kl"].mean()) == pytest.approx(expected, abs=1e-9)


@EVERYWHERE
def test_acdc_and_the_effects_of_all_edges_are_those_of_the_naive_search(ablation):
    problem, oracle = asked("gpt2", ablation)
    loss = loss_of("kl", oracle, problem.prompts)
    found = [decision.kept for decision in cf.discover(problem, "acdc", threshold=0.05).decisions]
    naive = search.acdc(oracle.logits, problem.graph, loss, 0.05)
    assert found == [decision.kept for decision in naive.decisions]
    exact = cf.discover(problem, "exact", n_edges=3)
    whole = loss(oracle.logits(problem.graph.edge_mask))
    for writer, reader in problem.graph.edge_mask.nonzero().tolist()[::7]:
        kept = problem.graph.edge_mask.clone()
        kept[writer, reader] = False
        effect = loss(oracle.logits(kept)) - whole
        assert float(exact.circuit.effects[writer, reader]) == pytest.approx(effect, abs=1e-9)


@EVERYWHERE
@pytest.mark.parametrize("family", FAMILIES)
def test_attribution_is_autograd_along_the_replacement(family, ablation):
    problem, oracle = asked(family, ablation, metric="logit-difference")
    loss = autograd_loss(problem)
    *_, (_, _, scores) = attribute(problem, [Place(1.0, 1.0)], Limits(batch=1))
    expected = attribution(oracle, loss, problem.prompts.clean, {}) / len(problem.prompts)
    mask = problem.graph.edge_mask
    torch.testing.assert_close(scores[mask], expected[mask], **EXACT)


@EVERYWHERE
def test_comparisons_estimate_with_the_replacement(ablation):
    problem, oracle = asked("gpt2", ablation, metric="logit-difference")
    found, loss = effects(problem), autograd_loss(problem)
    expected = sum(
        attribution(oracle, loss, problem.prompts.clean, {"embed": k / 3}) for k in (1, 2, 3)
    )
    mask = problem.graph.edge_mask
    n = 3 * len(problem.prompts)
    torch.testing.assert_close(found.edges[mask] * abs(found.lead), expected[mask] / n, **EXACT)


@EVERYWHERE
def test_the_page_shows_attention_with_the_replacement(ablation):
    problem, oracle = asked("gpt2", ablation)
    model, graph, prompts = problem.model, problem.graph, problem.prompts
    kept = random_mask(graph, 3, share=0.4)
    found = attention_data(problem, cf.Circuit(graph, kept))["heads"]["circuit"]
    embedding = embeddings(model, graph, prompts.clean)
    carried = torch.stack([oracle.replacement[writer.name] for writer in graph.writers])
    run = full_pass(model, graph, embedding, carried, kept.double(), keep_reads=True)
    patterns = {
        f"{block.name}.h{head}": pattern
        for block in graph.blocks
        if block.kind == "attention"
        for head, pattern in enumerate(attention_patterns(model, graph, run, block, prompts.real))
    }
    expected = stored_patterns(patterns, prompts.lengths.tolist(), causal=True)
    for head, texts in expected.items():
        for one, other in zip(texts, found[head], strict=True):
            # Where streams are alike, attention is a fraction that both may round either way.
            ours, theirs = (np.frombuffer(b64decode(text), dtype="<u2") for text in (one, other))
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@EVERYWHERE
def test_patching_patches_from_the_run_that_the_ablation_is_or_refuses(ablation):
    problem, _ = asked("gpt2", ablation, metric="logit-difference")
    if not ablation.pruning_is_free:
        for patch in (cf.patch, cf.path_patch, cf.linearised_edges):
            with pytest.raises(MethodError, match=f"under the ablation '{ablation.name}'.*no such"):
                patch(problem)
        return
    edges = ["embed"], ["logits"]
    patched = cf.patch_together(problem, *edges)
    kept = problem.graph.edge_mask.clone()
    kept[problem.graph.index("embed->logits")] = False
    engine = IncrementalEngine(problem)
    expected = engine.readout.values(engine.recomputed(kept))
    torch.testing.assert_close(patched.values["path"][0, 0], expected.double(), **EXACT)


def test_where_the_empty_graph_is_a_run_it_is_checked_and_dead_ends_go_freely():
    for ablation in (*OUTSIDE, *ABLATIONS):
        engine = IncrementalEngine(asked("gpt2", ablation)[0])
        is_run = ablation.name in ("turned-round", "resample")
        assert ablation.pruning_is_free is is_run
        assert (check_limits(engine).empty is not None) is is_run


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resample", 3), ("zero", 6), ("mean", 6), ("half", 6), ("between", 3), ("turned-round", 6)],
)
def test_only_positions_that_can_change_are_run_again(name, expected):
    (ablation,) = (each for each in (*OUTSIDE, *ABLATIONS) if each.name == name)
    problem = problem_of("gpt2", ablation, n_shared=3)
    assert IncrementalEngine(problem).horizon.changes == expected


def test_chunks_of_prompts_change_nothing():
    for ablation in OUTSIDE:
        problem = problem_of("gpt2", ablation, lengths=(6, 4, 5))
        kept = random_mask(problem.graph, 5)
        whole, parts = (Measured(in_chunks(problem, n)).own([kept]) for n in (3, 1))
        torch.testing.assert_close(whole, parts, **EXACT)


def test_what_cannot_be_answered_is_refused_before_anything_runs():
    for axes in ("head",), "batch", ["pos"]:
        with (
            types_checked(check=False),
            pytest.raises(MethodError, match="'odd' cannot be averaged over .*'batch'"),
        ):
            Ablation("odd", ((1.0, corrupted),), axes)  # type: ignore[arg-type]
    for runs in None, (clean,), ((math.nan, clean),), ((1.0, "clean"),), [(1.0, clean)]:
        with (
            types_checked(check=False),
            pytest.raises(MethodError, match="runs of the ablation 'odd' are .*give a tuple"),
        ):
            Ablation("odd", runs)  # type: ignore[arg-type]
    of_numbers = Ablation("numbers", ((1.0, lambda prompts: prompts.clean.double()),))
    with (
        types_checked(check=False),
        pytest.raises(MethodError, match="'numbers' runs the model on torch.float64; return"),
    ):
        problem_of("gpt2", of_numbers)
    of_next = Ablation("next", ((1.0, lambda prompts: prompts.corrupted.roll(1, 0)),))
    with pytest.raises(MethodError, match="'next' runs.*depend on more than one pair"):
        problem_of("gpt2", of_next)
    shorter = Ablation("shorter", ((1.0, lambda prompts: prompts.clean[:, 1:]),))
    with pytest.raises(MethodError, match="'shorter' runs.*as long as the pair"):
        problem_of("gpt2", shorter)
    by_position = Ablation("by-position", ((1.0, clean),), ("batch",))
    with pytest.raises(PromptError, match="'by-position' averages position by position"):
        problem_of("gpt2", by_position, lengths=(6, 4))


# ------------------------------------------------------------------------------- helpers


def asked(family: str, ablation: Ablation, metric: str = "kl") -> tuple[Problem, BruteForce]:
    """Return a problem, and the oracle with what the ablation's name says that cut edges carry."""
    problem = problem_of(family, ablation, metric)
    prompts, graph, model = problem.prompts, problem.graph, build(family, 0, n_layers=2)
    oracle = BruteForce(model, family, prompts.clean, prompts.corrupted, graph)
    if ablation in OUTSIDE:
        tokens = prompts.clean, prompts.corrupted, prompts.corrupted.flip(1)
        runs = [writer_outputs(model, family, each, graph) for each in tokens]
        oracle.replacement = {
            writer.name: _named(ablation.name, *(run[writer.name] for run in runs))
            for writer in graph.writers
        }
    return problem, oracle


def _named(name: str, clean: Tensor, corrupted: Tensor, flipped: Tensor) -> Tensor:
    return {
        "half": corrupted / 2,
        "between": clean / 4 + 3 * corrupted / 4,
        "mean-of-clean": clean.mean((0, 1)).expand_as(clean),
        "own-mean": corrupted.mean(1, keepdim=True).expand_as(clean),
        "turned-round": flipped,
    }[name]


def autograd_loss(problem: Problem) -> Callable[[Tensor], Tensor]:
    """Return the negative logit difference at the end, summed over prompts."""
    right, wrong = problem.prompts.answers[:, 0], problem.prompts.wrong_answers[:, 0]

    def loss(logits: Tensor) -> Tensor:
        rows = zip(logits[:, -1], right, wrong, strict=True)
        return -sum(row[good].mean() - row[bad].mean() for row, good, bad in rows)

    return loss
