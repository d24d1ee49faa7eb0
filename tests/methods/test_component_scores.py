"""Head importance and information flow, held to their formulas on the oracle's own runs."""

import pytest
import torch

from circuitfind.errors import MethodError
from circuitfind.methods.components import edges_between
from circuitfind.methods.eap import BatchOptions
from circuitfind.methods.hisp import Hisp
from circuitfind.methods.information_flow import InformationFlow
from tests.engine.problems import engine_of, oracle_of, prompts_of
from tests.engine.unit_cases import CASES
from tests.oracles.brute_force import writer_outputs
from tests.oracles.slopes import differences, slopes
from tests.oracles.units import by_block

CLOSE = {"rtol": 0, "atol": 1e-10}
FAMILIES = ["gpt2", "gpt-neox-parallel", "llama", "gemma2", "attention-only"]
ONE = BatchOptions()
SHIFTED = ((0, 1, 1, 1, 2, 2), (1, 0, 0, 2, 2, 2))
NOWHERE = ((0,) * 6,) * 2
"""The places of six positions: three of them, or a single one."""


@pytest.mark.parametrize(
    ("family", "ablation", "place_of"),
    [
        *((family, name, None) for family in FAMILIES for name in ("resample", "zero")),
        ("gpt2", "resample", SHIFTED),
        ("llama", "zero", SHIFTED),
    ],
)
def test_importance_is_the_size_of_each_prompts_slope_along_a_components_mask(
    family, ablation, place_of
):
    engine = engine_of(family, ablation, metric="logit-difference", place_of=place_of)
    graph, oracle, prompts = engine.graph, oracle_of(family, ablation), prompts_of(0, (6, 6))
    change, inputs = differences(oracle, prompts.clean), graph.merged
    importance = torch.zeros(len(graph.writers), graph.n_places, dtype=torch.float64)
    for row in range(2):
        # Of what leaves a writer, a prompt's loss sees the sum of what all its readers see.
        slope = slopes(oracle, lambda logits, row=row: negative_margin(logits, row), {})
        for index in range(len(graph.writers)):
            seen = (change[index] * slope[inputs.edge_mask[index]].sum(0)).sum(-1)
            for place in range(graph.n_places):
                here = torch.tensor([number == place for number in (place_of or NOWHERE)[row]])
                importance[index, place] += seen[row, here].sum().abs()
    for layer in range(graph.shape.n_layers):
        rows = [index for index, writer in enumerate(graph.writers) if writer.layer == layer]
        importance[rows] /= importance[rows].norm()
    found = on_edges(graph, Hisp().scores(engine, ONE).values)
    torch.testing.assert_close(found, on_edges(graph, weaker_end(graph, importance)), **CLOSE)


@pytest.mark.parametrize(
    ("family", "place_of", "case"),
    [
        *((family, None, None) for family in FAMILIES),
        ("gpt-neox-parallel", SHIFTED, None),
        ("llama", SHIFTED, None),
        ("gpt2", SHIFTED, "resid-post"),
    ],
)
def test_information_flow_is_each_writers_share_of_what_a_reader_reads(family, place_of, case):
    units = CASES[case] if case else {}
    engine, oracle = engine_of(family, place_of=place_of, **units), oracle_of(family)
    graph, prompts = engine.graph, prompts_of(0, (6, 6))
    where = torch.tensor(place_of or NOWHERE)
    dictionaries = by_block(units.get("dictionaries", ()))
    written = writer_outputs(
        oracle.model, family, prompts.clean, graph.merged, dictionaries=dictionaries
    )
    outputs = [written[writer.name] for writer in graph.writers]
    biases = [engine.problem.model.attention_bias(layer) for layer in range(graph.shape.n_layers)]
    expected = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    for column, reader in enumerate(graph.readers):
        earlier = graph.edge_mask[:, column].nonzero().flatten().tolist()
        read = sum(outputs[row] for row in earlier)
        for layer, bias in enumerate(biases):
            block = graph.attention[layer]
            if bias is not None and block.has_heads and reader.since <= block.stage < reader.stage:
                read = read + bias
        size = read.abs().sum(-1)
        near = {row: (size - (read - outputs[row]).abs().sum(-1)).clamp(min=0) for row in earlier}
        # Large parts that cancel one another may leave nothing that counts as a contribution.
        total = sum(near.values())
        for row in earlier:
            share = near[row] / total.where(total > 0, 1)
            expected[row, column] = (share * (where == column % graph.n_places)).mean()
    found = InformationFlow().scores(engine, ONE)
    torch.testing.assert_close(found.values, expected, **CLOSE)
    by_input = found.values.sum(0).unflatten(0, (-1, graph.n_places)).sum(1)
    if case is None:
        torch.testing.assert_close(by_input, torch.ones(len(by_input)).double())


@pytest.mark.parametrize("method", [Hisp(), InformationFlow()], ids=lambda method: method.name)
def test_component_scores_depend_neither_on_the_batch_nor_on_padding(method):
    for place_of in (None, ((0, 0, 1, 1, 2, 2), (1, 1, 2, 2, 2, 2), (0, 1, 1, 2, 2, 2))):
        engine = engine_of("llama", metric="logit-difference", lengths=(6, 4, 5), place_of=place_of)
        placed = method.scores(engine, ONE).values
        for batch in (1, 2):
            found = method.scores(engine, BatchOptions(batch=batch)).values
            torch.testing.assert_close(found, placed, **CLOSE)
        whole = placed if place_of is None else whole
    alone = [method.scores(engine_of("llama", metric="logit-difference", lengths=(6,)), ONE).values]
    assert alone[0].shape == whole.shape and not torch.equal(alone[0], whole)


def test_importance_needs_a_slope_at_the_clean_point():
    with pytest.raises(MethodError, match="the gradient of 'kl' is zero at the clean point"):
        Hisp().scores(engine_of("gpt2"), ONE)


def test_an_edge_is_worth_as_much_as_its_weaker_end_and_a_shared_head_as_its_best_user():
    graph = engine_of("llama").graph
    values = torch.arange(len(graph.writers), dtype=torch.float64) / 100
    between = edges_between(graph, values[:, None], 1.0)
    torch.testing.assert_close(
        on_edges(graph, between), on_edges(graph, weaker_end(graph, values[:, None])), **CLOSE
    )
    kept = graph.edge_mask & (between >= 0.05)
    for edge in graph.edges(kept):
        for end in (edge.writer.name, *[writer.name for writer in graph.fed_by(edge.reader)[-1:]]):
            assert end in ("embed", "logits") or float(values[graph.writer_index[end]]) >= 0.05


# ------------------------------------------------------------------------------- helpers


def negative_margin(logits, row):
    prompts = prompts_of(0, (6, 6))
    right, wrong = prompts.answers[row, 0], prompts.wrong_answers[row, 0]
    return logits[row, -1, wrong].mean() - logits[row, -1, right].mean()


def weaker_end(graph, values):
    found = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    for row, writer in enumerate(graph.writers):
        for column, fed in enumerate(graph.feeds):
            place, back = column % graph.n_places, graph.readers[column].looks_back
            writes = 1.0 if writer.stage == 0 else float(values[row, place])
            # Keys and values count for what their heads write at any place.
            reads = values[list(fed)] if back else values[list(fed), place]
            found[row, column] = min(writes, float(reads.max()) if fed else 1.0)
    return found


def on_edges(graph, values):
    return values.masked_fill(~graph.edge_mask, 0)
