"""Models whose layers differ in their heads and MLPs are searched like any other.

Random weights, so that every edge matters a little; the answers come from an oracle that adds up
streams from their definition and knows nothing of the engine.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from circuitfind.api import discover
from circuitfind.circuit import Circuit, load_circuit
from circuitfind.comparison.chance import exchanges
from circuitfind.errors import GraphError, MethodError, ModelError
from circuitfind.evaluation.scorecard import scorecard
from circuitfind.formats import FORMATS, export_circuit, import_circuit
from circuitfind.granularity import heads_and_mlps
from circuitfind.metrics import find_metric
from circuitfind.models.compiled_files import save_compiled
from circuitfind.models.compiled_sizes import read_sizes
from circuitfind.models.loading import load_model
from circuitfind.models.wiring import Wiring, column, one, sizes_of
from circuitfind.patching.sweep import patch
from circuitfind.problem import assemble
from circuitfind.prompts import Pair, collate
from circuitfind.reports.diagram import draw_circuit
from circuitfind.shape import ModelShape
from circuitfind.tasks import find_task
from tests.oracles import search as oracle_search
from tests.oracles.checkpoints import build
from tests.oracles.compiled import CompiledOracle

MIXED = {
    "n_layers": 3,
    "n_heads": [3, 1, 2],
    "d_mlp": [6, 0, 4],
    "parallel_mlp": [True, False, False],
}
"""An MLP beside the attention, none, and one after it."""

SERIAL = {"n_layers": 2, "n_heads": [2, 3], "d_mlp": [0, 5]}

ABLATIONS = ("resample", "zero", "mean", "mean-over-positions")


@pytest.mark.parametrize("normalization", [None, "LN"])
@pytest.mark.parametrize("sizes", [MIXED, SERIAL], ids=["mixed", "serial"])
def test_the_model_s_own_pass_is_what_the_oracle_adds_up(sizes, normalization, tmp_path):
    file = write(tmp_path, sizes, normalization=normalization)
    model, prompts = load_model(str(file)), prompts_of()
    graph = heads_and_mlps(model.shape)
    oracle = CompiledOracle(file, graph, prompts.clean, prompts.corrupted, "zero")
    expected = oracle.outputs(edge.name for edge in graph.edges())
    torch.testing.assert_close(model.own_logits(prompts.clean), expected, rtol=0, atol=1e-10)


def test_the_graph_lists_what_each_layer_has(tmp_path):
    graph = heads_and_mlps(load_model(str(write(tmp_path, MIXED))).shape)
    assert [writer.name for writer in graph.writers] == [
        "embed", "a0.h0", "a0.h1", "a0.h2", "m0", "a1.h0", "a2.h0", "a2.h1", "m2",
    ]  # fmt: skip
    assert [(block.name, block.stage) for block in graph.blocks] == [
        ("embedding", 0), ("a0", 1), ("m0", 1), ("a1", 3), ("a2", 5), ("m2", 6), ("logits", 7),
    ]  # fmt: skip
    into = [
        sum(edge.reader.name == name for edge in graph.edges()) for name in ("m0", "m2", "a1.h0.q")
    ]
    assert into == [1, 8, 5]


def test_renaming_exchangeable_heads_changes_no_edge_and_no_input():
    shape = ModelShape(3, (4, 1, 2), (2, 1, 2), 8, 4, 10, has_mlp=(True, False, True))
    graph = heads_and_mlps(shape)
    ways = exchanges(graph, draws=10_000)
    # The first layer has two groups of two heads, the last two groups of one.
    assert ways.complete and len(ways) == (2 * 2 * 2) * 1 * 2
    for writers, readers in zip(ways.writers, ways.readers, strict=True):
        assert torch.equal(graph.edge_mask[writers][:, readers], graph.edge_mask)
        for reader, fed in enumerate(graph.feeds):
            assert set(graph.feeds[readers[reader]]) == {int(writers[writer]) for writer in fed}
            assert graph.readers[readers[reader]].port == graph.readers[reader].port


def test_layers_can_be_patched_and_heads_are_refused_with_the_reason(tmp_path):
    problem, _ = problem_of(write(tmp_path, MIXED), "resample")
    problem = replace(problem, metric=find_metric("logit-difference"))
    result = patch(problem, sites="resid_pre,attn_out")
    assert result.values["attn_out"].shape[0] == 3
    with pytest.raises(MethodError, match=r"different numbers of heads \(3, 1, 2\)"):
        patch(problem, sites="head")
    with pytest.raises(MethodError, match="some of its blocks have no MLP"):
        patch(problem, sites="mlp_out")


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("sizes", [MIXED, SERIAL], ids=["mixed", "serial"])
def test_acdc_decides_every_edge_as_the_naive_search_does(sizes, ablation, tmp_path):
    problem, oracle = problem_of(write(tmp_path, sizes), ablation)
    expected = oracle_search.acdc(
        logits_of(oracle, problem), problem.graph, loss_of(oracle, problem), 0.02
    )
    found = discover(problem, threshold=0.02)
    assert 0 < found.circuit.n_edges < problem.graph.n_edges
    assert torch.equal(found.circuit.kept, expected.kept)
    for ours, theirs in zip(found.decisions, expected.decisions, strict=True):
        assert (ours.edge, ours.kept) == (theirs.edge, theirs.kept)
        assert (ours.effect is None) == (theirs.effect is None)
        assert theirs.effect is None or ours.effect == pytest.approx(theirs.effect, abs=1e-9)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("sizes", [MIXED, SERIAL], ids=["mixed", "serial"])
def test_an_edge_s_effect_is_that_of_running_the_model_without_it(sizes, ablation, tmp_path):
    problem, oracle = problem_of(write(tmp_path, sizes), ablation)
    expected = oracle_search.leave_one_out(
        logits_of(oracle, problem), problem.graph, loss_of(oracle, problem)
    )
    found = discover(problem, "exact", threshold=0.0)
    torch.testing.assert_close(found.circuit.effects, expected, rtol=0, atol=1e-9, equal_nan=True)


def test_attribution_is_the_effect_where_the_metric_is_linear_in_what_the_logits_read(tmp_path):
    problem, oracle = problem_of(write(tmp_path, MIXED), "zero")
    problem = replace(problem, metric=find_metric("logit-difference"))
    scores = discover(problem, "eap", n_edges=problem.graph.n_edges).circuit.effects
    assert torch.equal(scores.isfinite(), problem.graph.edge_mask)
    run = logits_of(oracle, problem)
    whole = run(problem.graph.edge_mask)[:, -1]
    for writer in range(len(problem.graph.writers)):
        without = problem.graph.edge_mask.clone()
        without[writer, -1] = False
        change = (run(without)[:, -1] - whole).mean(0)
        expected = float(change[2] - change[1])
        assert float(scores[writer, -1]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sizes", [MIXED, SERIAL], ids=["mixed", "serial"])
@pytest.mark.parametrize("format_name", [known.name for known in FORMATS])
def test_a_circuit_is_exported_and_comes_back(sizes, format_name, tmp_path):
    if format_name == "acdc" and sizes is MIXED:
        pytest.skip("ACDC's graphs do not know MLPs beside the attention")
    problem, _ = problem_of(write(tmp_path, sizes), "resample")
    circuit = discover(problem, threshold=0.02).circuit
    path = tmp_path / f"exported{FORMATS.find(format_name).suffix}"
    export_circuit(circuit, path, format_name=format_name)
    found = import_circuit(path, problem.graph if format_name == "csv" else None)
    assert found.graph == problem.graph and torch.equal(found.kept, circuit.kept)


def test_a_circuit_file_states_the_layers_and_is_read_back(tmp_path):
    problem, _ = problem_of(write(tmp_path, MIXED), "resample")
    circuit = discover(problem, threshold=0.02).circuit
    circuit.save(tmp_path / "circuit.json")
    shape = json.loads((tmp_path / "circuit.json").read_text())["shape"]
    assert (shape["n_heads"], shape["has_mlp"]) == ([3, 1, 2], [True, False, True])
    found = load_circuit(tmp_path / "circuit.json")
    assert found.graph == problem.graph and torch.equal(found.kept, circuit.kept)
    torch.testing.assert_close(found.effects[found.kept], circuit.effects[circuit.kept])


def test_a_circuit_is_drawn_and_measured(tmp_path):
    problem, _ = problem_of(write(tmp_path, MIXED), "resample")
    found = discover(problem, threshold=0.02)
    drawn = draw_circuit(found.circuit).svg()
    assert all(name in drawn for name in found.circuit.heads_and_mlps)
    card = scorecard(found)
    assert card.n_components_full == 8 and 0 < card.n_edges < problem.graph.n_edges


def test_a_wired_model_whose_layers_differ_has_the_circuit_it_was_wired_with(tmp_path):
    """a0.h2 fetches the first symbol, and m1, after a layer without MLP, says whether it is b."""
    sizes = sizes_of("ab", ["b"], 3, n_layers=2, n_heads=[3, 1], d_head=1, d_mlp=[0, 1])
    wiring = Wiring(sizes, {"token": 3, "position": 4, "b": 1, "output": 1})
    wiring.head(
        0, 2, query={}, query_bias=[40.0], key={"position": column(one(4, 1))},
        value={"token": column(one(3, 2))}, output={"b": torch.ones(1, 1)},
    )  # fmt: skip
    wiring.unit(1, 0, {"b": [1.0]}, 0.0, {"output": [1.0]})
    wiring.save(tmp_path, "first-is-b")
    model = load_model(str(tmp_path / "first-is-b.json"), dtype="float64")
    prompts = find_task("program").write_prompts(model.vocabulary, 16, 0)
    found = discover(assemble(model, prompts, find_metric("l2")), threshold=1e-4)
    assert {edge.name for edge in found.circuit.edges} == {
        "embed->a0.h2.v",
        "a0.h2->m1",
        "m1->logits",
    }


def test_weights_whose_layers_differ_are_saved_and_loaded(tmp_path):
    sizes = read_sizes(settings_of(MIXED))
    weights = weights_of(sizes)
    parallel = [True, False, False]
    file = save_compiled(
        tmp_path / "saved.json",
        weights,
        activation="gelu",
        attention="causal",
        parallel_mlp=parallel,
    )
    model = load_model(str(file))
    assert model.shape.n_heads == (3, 1, 2) and model.shape.has_mlp == (True, False, True)


# ------------------------------------------------------------------------------- refusals


def test_one_value_for_each_layer_is_asked_for():
    with pytest.raises(GraphError, match="n_heads has 2 values and the model 3 layers"):
        ModelShape(3, (1, 2), 1, 8, 4, 10)
    with pytest.raises(GraphError, match="3 query heads cannot be shared out evenly over 2"):
        ModelShape(2, (4, 3), 2, 8, 4, 10)
    with pytest.raises(GraphError, match="positive integers"):
        ModelShape(2, (4, 0), 2, 8, 4, 10)
    assert ModelShape(2, (4, 4), 4, 8, 4, 10) == ModelShape(2, 4, 4, 8, 4, 10)


def test_a_file_with_too_few_values_is_refused(tmp_path):
    file = write(tmp_path, MIXED)
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "n_heads": [3, 1]}))
    with pytest.raises(ModelError, match="n_heads has 2 values and n_layers is 3"):
        load_model(str(file))


# ------------------------------------------------------------------------------- helpers


def settings_of(sizes, normalization=None):
    return {
        "d_model": 8, "d_head": 3, "n_ctx": 5, "d_vocab": 7, "d_vocab_out": 6, "activation": "gelu",
        "attention": "causal", "attention_scale": 1.7, "normalization": normalization, **sizes,
    }  # fmt: skip


def weights_of(sizes):
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) / 2
        for name, shape in {**sizes.required(), **sizes.biases()}.items()
    }


def write(folder, sizes, **settings):
    content = settings_of(sizes, **settings)
    file = folder / "layers.json"
    file.write_text(json.dumps(content))
    save_file(weights_of(read_sizes(content)), file.with_suffix(".safetensors"))
    return file


def prompts_of():
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(7, (2, 5), generator=generator).tolist() for _ in range(3)]
    return collate(
        [Pair(clean, other, answers=[[1]], wrong_answers=[[2]]) for clean, other in rows]
    )


def problem_of(file, ablation):
    model, prompts = load_model(str(file)), prompts_of()
    problem = assemble(model, prompts, find_metric("kl"), ablation)
    return problem, CompiledOracle(file, problem.graph, prompts.clean, prompts.corrupted, ablation)


def logits_of(oracle, problem):
    return lambda mask: oracle.outputs(edge.name for edge in Circuit(problem.graph, mask).edges)


def loss_of(oracle, problem):
    full = logits_of(oracle, problem)(problem.graph.edge_mask)[:, -1].log_softmax(-1)

    def kl(logits):
        found = logits[:, -1].log_softmax(-1)
        return float((full.exp() * (full - found)).sum(-1).mean())

    return kl


def test_a_checkpoint_whose_layers_differ_is_refused_by_its_reason():
    """TransformerLens takes the number of heads from the configuration, which has one for all."""
    model = build("llama", n_layers=2)
    attention, width = model.model.layers[1].self_attn, model.config.hidden_size
    for name, n_heads in (("q_proj", 2), ("k_proj", 1), ("v_proj", 1)):
        n_rows = n_heads * attention.head_dim
        projection = torch.nn.Linear(width, n_rows, bias=False, dtype=torch.float64)
        setattr(attention, name, projection)
    attention.o_proj = torch.nn.Linear(n_rows * 2, width, bias=False, dtype=torch.float64)
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
    with pytest.raises(ModelError, match="this layer's attention geometry differs") as refused:
        load_model(model)
    assert "\n" not in str(refused.value)
