"""MLPs taken apart into neurons or latents: the engine held to brute force over the whole model."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitfind.engine import soft_mask
from circuitfind.engine.full_pass import full_pass, sources
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.graph import Graph, Units
from circuitfind.methods.attribution import Place
from circuitfind.methods.eap import CLEAN, EapOptions, along
from circuitfind.methods.eap_ig import EapIgOptions, places_of
from tests.engine.problems import (
    EXACT,
    SHIFTED,
    engine_of,
    logits_at_steps,
    loss_of,
    model_of,
    oracle_of,
    random_mask,
)
from tests.engine.unit_cases import CASES, SKIP, at_layer, latents
from tests.oracles.checkpoints import D_MLP
from tests.oracles.slopes import attribution

QUICK = {
    "gpt2": ("neurons", "jumprelu", "topk", "sae", "attention-z", "both"),
    "llama": ("neurons", "transcoder", "mixed", "attention", "streams"),
    "gpt-j": ("neurons", "jumprelu", "after-sae", "attention"),
    "gemma2": ("neurons", "normalized", "sae", "late", "attention"),
    "bidirectional": ("neurons", "together", "attention-z"),
}
"""The cases that are not slow, by family: some of each kind."""

IMPOSSIBLE = {("gemma2", "attention-z"), ("gpt-j", "resid-mid")}
"""A norm behind the heads of Gemma 2 leaves latents of their z without rows; the MLPs of GPT-J do
not read what their attention writes."""

FEW = {
    ("gpt2", "jumprelu"),
    ("gpt2", "topk"),
    ("llama", "mixed"),
    ("gpt-j", "neurons"),
    ("gemma2", "neurons"),
    ("bidirectional", "sae"),
    ("llama", "attention"),
    ("gpt2", "both"),
}
"""Those of tests that run the whole model some hundred times."""


def pairs(quick: Any) -> Any:
    """Return a mark that asks about every family and case, slowly where it is not `quick`."""
    params = [
        pytest.param(family, case, marks=() if quick(family, case) else pytest.mark.slow)
        for family in QUICK
        for case in CASES
        if (family, case) not in IMPOSSIBLE
    ]
    return pytest.mark.parametrize(("family", "case"), params)


each = pairs(lambda family, case: case in QUICK[family])
few = pairs(lambda family, case: (family, case) in FEW)
every_family = pytest.mark.parametrize("family", QUICK)


@each
def test_the_whole_graph_is_the_model_and_the_empty_one_its_corrupted_run(family, case):
    engine = engine_of(family, **CASES[case])
    prompts, model = engine.problem.prompts, model_of(family)
    everything = engine.graph.edge_mask
    for mask, tokens in (
        (everything, prompts.clean),
        (torch.zeros_like(everything), prompts.corrupted),
    ):
        expected = model.own_logits(tokens)[:, -1:]
        for final in (engine.start_from(mask).final, *scratches(engine, mask)):
            torch.testing.assert_close(logits_at_steps(engine, final), expected, **EXACT)


@each
@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
def test_any_mask_gives_the_logits_of_the_oracle(family, case, ablation):
    engine, oracle = (of(family, ablation, **CASES[case]) for of in (engine_of, oracle_of))
    for seed, share in enumerate((0.1, 0.5, 0.9)):
        mask = random_mask(engine.graph, seed, share)
        finals = [engine.start_from(mask).final, whole_pass(engine, mask.double())]
        # Of the clean run almost nothing is left where few edges are, and Gemma's norms make its
        # rounding large.
        finals += scratches(engine, mask)[0 if share >= 0.5 else 1 :]
        for final in finals:
            assert_logits(engine, oracle.logits(mask), final)


@each
def test_so_it_is_with_padding_and_several_steps(family, case):
    options = {"lengths": (6, 4, 5), "steps": (1, 3), **CASES[case]}
    engine, oracle = (of(family, "mean-over-positions", **options) for of in (engine_of, oracle_of))
    mask = random_mask(engine.graph, seed=0, share=0.7)
    for final in (engine.start_from(mask).final, *scratches(engine, mask)):
        assert_logits(engine, oracle.logits(mask), final)


@each
def test_cuts_one_after_the_other_end_where_the_oracle_is(family, case):
    engine, oracle = (of(family, **CASES[case]) for of in (engine_of, oracle_of))
    generator = torch.Generator().manual_seed(1)
    for share in (0.3, 1.1):
        state = engine.start_from(random_mask(engine.graph, seed=2, share=share))
        for size in (1, 1, 6, 20):
            edges = state.mask.nonzero()
            some = edges[torch.randperm(len(edges), generator=generator)[:size]]
            state = engine.cut(state, [(w, r) for w, r in some.tolist()])
            assert engine.drift(state) < 1e-12
            assert_logits(engine, oracle.logits(state.mask), state.final)


@few
def test_every_edge_cut_alone_is_what_the_oracle_says(family, case):
    engine, oracle = (of(family, **CASES[case]) for of in (engine_of, oracle_of))
    state, changed = engine.start(), 0
    for reader in range(len(engine.graph.readers)):
        writers = engine.graph.edge_mask[:, reader].nonzero().flatten().tolist()
        tried = engine.cut_each(state, reader, writers)
        for writer, final in zip(writers, tried.final, strict=True):
            mask = engine.graph.edge_mask.clone()
            mask[writer, reader] = False
            assert_logits(engine, oracle.logits(mask), final)
            alone = engine.cut(state, [(writer, reader)]).final
            assert_same(engine, alone, final)
            changed += bool((final - state.final[:, -final.shape[1] :]).abs().max() > 1e-9)
    assert changed > engine.graph.n_edges / 2


@few
@pytest.mark.parametrize("nested", [False, True])
def test_candidates_in_a_batch_are_those_of_the_oracle(family, case, nested):
    engine, oracle = (of(family, "zero", **CASES[case]) for of in (engine_of, oracle_of))
    mask = random_mask(engine.graph, seed=1, share=0.8)
    state = engine.start_from(mask)
    cut = engine.cut_nested if nested else engine.cut_each
    for reader in range(len(engine.graph.readers)):
        writers = mask[:, reader].nonzero().flatten().tolist()[::-2]
        if not writers:
            continue
        tried = cut(state, reader, writers)
        for number, final in enumerate(tried.final):
            kept = mask.clone()
            kept[writers[: number + 1] if nested else writers[number], reader] = False
            assert_logits(engine, oracle.logits(kept), final)
        assert engine.drift(tried.pick(number, kept.numpy())) < 1e-12


@each
def test_all_parts_of_a_block_cut_into_a_reader_are_what_they_stand_for_cut_into_it(family, case):
    """Behind it no MLP is taken apart: an error that is fixed would not follow."""
    whole, apart = engine_of(family), engine_of(family, **at_layer(0, CASES[case]))
    block, stands_for = "m0", ["m0"]
    if "post0.rest" in apart.graph.writer_index:
        block = "post0"
        stands_for = [writer.name for writer in whole.graph.writers if writer.layer in (None, 0)]
    for reader in ("logits", "a1.h2.q", "a1.h0.q"):
        edges = [whole.graph.index(f"{name}->{reader}") for name in stands_for]
        expected = whole.cut(whole.start(), edges)
        parts = [(w, apart.graph.reader_index[reader]) for w in of_block(apart.graph, block)]
        assert len(parts) > 1 or not any(units.block == block for units in apart.graph.units)
        assert_same(apart, apart.cut(apart.start(), parts).final, expected.final)
        for scratch in scratches(apart, without(apart.graph, parts)):
            assert_same(apart, scratch, expected.final)


@every_family
@pytest.mark.parametrize("case", ["neurons", "sae"])
def test_an_edge_into_an_mlp_with_one_input_is_what_it_is_without_units(family, case):
    whole, apart = engine_of(family), engine_of(family, **CASES[case])
    for writer in ("embed", "a0.h2"):
        expected = whole.cut(whole.start(), [whole.graph.index(f"{writer}->m1")])
        found = apart.cut(apart.start(), [apart.graph.index(f"{writer}->m1")])
        assert_same(apart, found.final, expected.final)


@every_family
def test_an_edge_cut_into_all_inputs_of_an_mlp_is_that_edge_where_it_has_one(family):
    together = engine_of(family, **CASES["together"])
    apart = engine_of(family, **latents(0, 1, made=SKIP, apart=True, skip=True, error="fixed"))
    for writer in ("embed", "a0.h2", "m0.f4"):
        expected = together.cut(together.start(), [together.graph.index(f"{writer}->m1")])
        parts = [r.name for r in apart.graph.readers if r.name.startswith("m1.")]
        pairs = [apart.graph.index(f"{writer}->{part}") for part in parts]
        assert_same(apart, apart.cut(apart.start(), pairs).final, expected.final)


@every_family
def test_an_mlp_of_which_no_neuron_is_listed_is_the_mlp(family):
    none = {"units": tuple(Units(layer, "neuron", ()) for layer in (0, 1))}
    for ablation in ("resample", "zero", "mean"):
        whole, apart = engine_of(family, ablation), engine_of(family, ablation, **none)
        mask = random_mask(whole.graph, seed=0)
        expected = whole.start_from(mask)
        for final in (apart.start_from(mask).final, *scratches(apart, mask)):
            assert_same(apart, final, expected.final)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_all_neurons_of_an_mlp_may_be_listed(family):
    everything = {"units": (Units(0, "neuron", tuple(range(D_MLP))),)}
    engine, oracle = (of(family, **everything) for of in (engine_of, oracle_of))
    for seed, share in enumerate((0.2, 0.8)):
        mask = random_mask(engine.graph, seed, share)
        for final in (engine.start_from(mask).final, *scratches(engine, mask)):
            assert_logits(engine, oracle.logits(mask), final)


# ------------------------------------------------------------------------------- places


@each
def test_at_places_any_mask_gives_the_logits_of_the_oracle(family, case):
    engine, oracle = (of(family, place_of=SHIFTED, **CASES[case]) for of in (engine_of, oracle_of))
    for seed, share in enumerate((0.2, 0.8)):
        mask = random_mask(engine.graph, seed, share)
        state = engine.start_from(mask)
        for final in (state.final, *scratches(engine, mask), whole_pass(engine, mask.double())):
            assert_logits(engine, oracle.logits(mask), final)
        edges = mask.nonzero().tolist()
        cut = engine.cut(state, [tuple(edge) for edge in edges[seed::9]])
        assert_logits(engine, oracle.logits(cut.mask), cut.final)
        assert engine.drift(cut) < 1e-12


@few
@pytest.mark.parametrize("nested", [False, True])
def test_candidates_at_a_place_are_those_of_the_oracle(family, case, nested):
    engine, oracle = (of(family, place_of=SHIFTED, **CASES[case]) for of in (engine_of, oracle_of))
    mask = random_mask(engine.graph, seed=1, share=0.8)
    state = engine.start_from(mask)
    cut = engine.cut_nested if nested else engine.cut_each
    for reader in range(0, len(engine.graph.readers), 7):
        writers = mask[:, reader].nonzero().flatten().tolist()[-4:]
        if not writers:
            continue
        tried = cut(state, reader, writers)
        for number, final in enumerate(tried.final):
            kept = mask.clone()
            kept[writers[: number + 1] if nested else writers[number], reader] = False
            assert_logits(engine, oracle.logits(kept), final)
            assert engine.drift(tried.pick(number, kept.numpy())) < 1e-12


@each
def test_an_edge_cut_at_all_places_is_the_edge_cut(family, case):
    whole, placed = (
        engine_of(family, **CASES[case]),
        engine_of(family, place_of=SHIFTED, **CASES[case]),
    )
    mask = random_mask(whole.graph, seed=3)
    same = mask.repeat_interleave(placed.graph.n_places, dim=1)
    assert_same(placed, placed.start_from(same).final, whole.start_from(mask).final)


# ------------------------------------------------------------------------------- slopes


@each
@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_eap_is_the_slope_of_the_oracle_s_loss_along_every_edge(family, case, ablation):
    engine = engine_of(family, ablation, metric="logit-difference", **CASES[case])
    oracle, prompts = oracle_of(family, ablation, **CASES[case]), engine.problem.prompts
    found, graph = scores_of(engine), engine.graph
    expected = attribution(oracle, differentiable_loss(prompts), prompts.clean, {})
    expected = expected.masked_fill(~graph.edge_mask, 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (expected != 0).sum() > graph.n_edges / 2


@each
def test_eap_is_what_finite_differences_along_an_edge_give(family, case):
    engine = engine_of(family, metric="logit-difference", **CASES[case])
    oracle, graph = oracle_of(family, **CASES[case]), engine.graph
    loss = loss_of("logit-difference", oracle, engine.problem.prompts)
    found = scores_of(engine)
    for writer, reader in some_edges(graph, 8):
        step = torch.zeros_like(graph.edge_mask, dtype=torch.float64)
        step[writer, reader] = 1e-5
        full = graph.edge_mask.double()
        slope = (loss(oracle.logits(full - step)) - loss(oracle.logits(full + step))) / 2e-5
        assert float(found[writer, reader]) == pytest.approx(slope, abs=1e-7)


@each
@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_integrated_gradients_are_those_of_runs_between_what_reads_nothing(family, case, ablation):
    engine = engine_of(family, ablation, metric="logit-difference", **CASES[case])
    oracle, graph = oracle_of(family, ablation, **CASES[case]), engine.graph
    loss, tokens = differentiable_loss(engine.problem.prompts), engine.problem.prompts.clean
    sources = [graph.writers[index].name for index in graph.sources]
    expected = sum(
        attribution(oracle, loss, tokens, dict.fromkeys(sources, share)) for share in (0.5, 1.0)
    )
    found = scores_of(engine, places_of(graph, EapIgOptions(steps=2)))
    expected = (expected / 2).masked_fill(~graph.edge_mask, 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@few
def test_integrated_activations_vary_one_unit_alone(family, case):
    engine = engine_of(family, metric="logit-difference", **CASES[case])
    oracle, graph = oracle_of(family, **CASES[case]), engine.graph
    loss, tokens = differentiable_loss(engine.problem.prompts), engine.problem.prompts.clean
    found = scores_of(engine, places_of(graph, EapIgOptions(variant="activations", steps=2)))
    for row, writer in enumerate(graph.writers):
        each = [attribution(oracle, loss, tokens, {writer.name: share}) for share in (0.5, 1.0)]
        expected = (sum(each)[row] / 2).masked_fill(~graph.edge_mask[row], 0)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-10)


@few
def test_at_places_too(family, case):
    options = {"place_of": SHIFTED, **CASES[case]}
    engine = engine_of(family, metric="logit-difference", **options)
    oracle, graph = oracle_of(family, **options), engine.graph
    loss = loss_of("logit-difference", oracle, engine.problem.prompts)
    found = scores_of(engine)
    for writer, reader in some_edges(graph, 8):
        step = torch.zeros_like(graph.edge_mask, dtype=torch.float64)
        step[writer, reader] = 1e-5
        full = graph.edge_mask.double()
        slope = (loss(oracle.logits(full - step)) - loss(oracle.logits(full + step))) / 2e-5
        assert float(found[writer, reader]) == pytest.approx(slope, abs=1e-7)


@each
def test_the_slope_at_a_soft_mask_is_that_of_the_oracle_s_loss(family, case):
    engine, oracle = (of(family, **CASES[case]) for of in (engine_of, oracle_of))
    loss = loss_of("kl", oracle, engine.problem.prompts)
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(engine.graph.edge_mask.shape, generator=generator, dtype=torch.float64)
    soft = soft * engine.graph.edge_mask
    assert_logits(engine, oracle.logits(soft), whole_pass(engine, soft))
    found = soft_mask.slope(engine, soft)
    for pair in some_edges(engine.graph, 8):
        step = torch.zeros_like(soft)
        step[pair] = 1e-5
        rise = loss(oracle.logits(soft + step)) - loss(oracle.logits(soft - step))
        assert float(found[pair]) == pytest.approx(rise / 2e-5, abs=1e-7)


# ------------------------------------------------------------------------------- prompts and chunks


@each
def test_prompts_alone_give_what_they_give_together(family, case):
    whole = engine_of(family, lengths=(6, 4, 5), **CASES[case])
    problem, mask = whole.problem, random_mask(whole.graph, seed=5)
    apart = [
        IncrementalEngine(replace(problem, prompts=problem.prompts.rows(slice(row, row + 1))))
        for row in range(len(problem.prompts))
    ]
    found = torch.cat([engine.measure([mask])[0] for engine in apart])
    torch.testing.assert_close(found, whole.measure([mask])[0], **EXACT)


# ------------------------------------------------------------------------------- helpers


def scratches(engine: IncrementalEngine, mask: Tensor) -> list[Tensor]:
    """Return the final streams of passes from scratch, from both starts."""
    return [engine.recomputed(mask, start) for start in ("clean", "replaced")]


def whole_pass(engine: IncrementalEngine, mask: Tensor) -> Tensor:
    """Return the final stream of a pass with a mask that need not be 0 or 1."""
    problem, prompts = engine.problem, engine.problem.prompts
    with torch.no_grad():
        return full_pass(
            problem.model,
            problem.graph,
            sources(problem.model, problem.graph, prompts.clean, prompts.real),
            engine.replacement,
            mask,
            prompts.real,
            problem.places,
        ).final


def assert_logits(engine: IncrementalEngine, expected: Tensor, final: Tensor) -> None:
    prompts = engine.problem.prompts
    real = prompts.step_is_real
    found = logits_at_steps(engine, final)[real]
    torch.testing.assert_close(found, prompts.at_steps(expected)[real], **EXACT)


def assert_same(engine: IncrementalEngine, found: Tensor, expected: Tensor) -> None:
    """Final streams are the same where the metric reads."""
    found, expected = (engine.readout.at_steps(final) for final in (found, expected))
    torch.testing.assert_close(found, expected, **EXACT)


def of_block(graph: Graph, name: str) -> list[int]:
    """Return the writers that a block is taken apart into."""
    return [i for i, each in enumerate(graph.writers) if each.name.split(".")[0] == name]


def without(graph: Graph, edges: list[tuple[int, int]]) -> Tensor:
    mask = graph.edge_mask.clone()
    for pair in edges:
        mask[pair] = False
    return mask


def some_edges(graph: Graph, n: int) -> list[tuple[int, int]]:
    """Return edges from and to the parts of blocks, and as many others."""
    found = []
    order = torch.Generator().manual_seed(0)
    of_units = tuple(units.block for units in graph.units)
    of_parts = torch.tensor([w.name.startswith(of_units) for w in graph.writers])[:, None]
    of_parts = of_parts | torch.tensor([r.name.startswith(of_units) for r in graph.readers])[None]
    for wanted in (graph.edge_mask & of_parts, graph.edge_mask & ~of_parts):
        edges = wanted.nonzero()
        some = edges[torch.randperm(len(edges), generator=order)[: n // 2]]
        found += [(writer, reader) for writer, reader in some.tolist()]
    return found


def scores_of(engine: IncrementalEngine, places: Iterable[Place] = (CLEAN,)) -> Tensor:
    """Return the scores of a problem's edges from gradients at some places; by default eap."""
    *_, last = along(engine, list(places), EapOptions(), None)
    return last.state["scores"].masked_fill(~engine.graph.edge_mask, 0)


def differentiable_loss(prompts: Any) -> Any:
    def loss(logits: Tensor) -> Tensor:
        rows = zip(logits[:, -1], prompts.answers[:, 0], prompts.wrong_answers[:, 0], strict=True)
        return -sum(row[right].mean() - row[wrong].mean() for row, right, wrong in rows) / 2

    return loss
