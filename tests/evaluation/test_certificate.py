"""Certificates: what is proved on all inputs is so, and each level of minimality is right."""

import itertools
import json
from math import comb

import pytest
import torch

import circuitfind as cf
from circuitfind.circuit import Circuit
from circuitfind.evaluation.certificate import certify
from circuitfind.evaluation.intervals import share_bound
from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of
from circuitfind.reports.certificate import certificate_text
from circuitfind.verbs.certify import certify_run


def problem_of(model, ablation="resample", task="program"):
    return cf.make_problem(
        cf.load_model(model, dtype="float64"), task, n_prompts=2, ablation=ablation
    )


def circuit_of(problem, edges):
    return Circuit(problem.graph, problem.graph.mask_of(edges))


def by_hand(weights, mask, graph, clean, other):
    """Run a model of one layer with two heads, an MLP and no norms, edge by edge."""
    tokens = {"clean": clean, "other": other}
    kept = {edge.name for edge in Circuit(graph, mask).edges}
    embedded = {
        name: weights["embed.W_E"][each] + weights["pos_embed.W_pos"][: len(each)]
        for name, each in tokens.items()
    }

    def run(read, written):
        for head in (0, 1):
            ports = {}
            for port in "qkv":
                weight, bias = (
                    weights[f"blocks.0.attn.{kind}_{port.upper()}"][head] for kind in "Wb"
                )
                ports[port] = read("embed", f"a0.h{head}.{port}") @ weight + bias
            pattern = (ports["q"] @ ports["k"].T).softmax(-1)
            written[f"a0.h{head}"] = pattern @ ports["v"] @ weights["blocks.0.attn.W_O"][head]
        stream = sum(read(writer, "m0") for writer in ("embed", "a0.h0", "a0.h1"))
        inner = (stream @ weights["blocks.0.mlp.W_in"] + weights["blocks.0.mlp.b_in"]).relu()
        written["m0"] = inner @ weights["blocks.0.mlp.W_out"]
        stream = sum(read(writer, "logits") for writer in ("embed", "a0.h0", "a0.h1", "m0"))
        return stream @ weights["unembed.W_U"]

    base = {"embed": embedded["other"]}
    run(lambda writer, reader: base[writer], base)
    current = {"embed": embedded["clean"]}

    def read(writer, reader):
        return (current if f"{writer}->{reader}" in kept else base)[writer]

    return run(read, current)[1:]


@pytest.mark.parametrize("gate", ["and-gate", "or-gate"])
def test_certificates_agree_with_every_pair_of_inputs_computed_by_hand(gate):
    problem = problem_of(gate)
    graph, weights = problem.graph, problem.model._weights
    truth = graph.mask_of(problem.model.sizes["truth"]["resample"])
    generator = torch.Generator().manual_seed(0)
    masks = [truth, graph.edge_mask]
    masks += [
        (torch.rand(truth.shape, generator=generator) < share) & graph.edge_mask
        for share in (0.5, 0.8, 0.9, 0.95, 0.95)
    ]
    masks += [mask | truth for mask in masks[2:]]
    inputs = [torch.tensor([0, *each]) for each in itertools.product((1, 2), repeat=2)]
    seen = set()
    for mask in masks:
        differ = sum(
            bool(
                (
                    by_hand(weights, mask, graph, clean, other)
                    - by_hand(weights, graph.edge_mask, graph, clean, other)
                )
                .abs()
                .max()
                > 1e-6
            )
            for clean, other in itertools.product(inputs, repeat=2)
        )
        found = certify(problem, Circuit(graph, mask), tries=1)
        assert found.n_different == differ
        assert found.equal == (differ == 0)
        assert found.every_input and found.n_inputs == 4 and found.n_cases == 16
        seen.add(found.equal)
    assert seen == {True, False}


@pytest.mark.parametrize(("ablation", "cases"), [("resample", 16), ("zero", 4), ("mean", 4)])
def test_the_true_circuit_is_certified_under_each_ablation(ablation, cases):
    problem = problem_of("and-gate", ablation)
    truth = circuit_of(problem, problem.model.sizes["truth"][ablation])
    found = certify(problem, truth, tries=1200)
    assert (found.equal, found.n_cases, found.failure_bound) == (True, cases, 0.0)
    n = truth.n_edges
    tried = [level.n_tried for level in found.levels[:3]]
    assert tried == [n, n * (n - 1) // 2, 2**n - 1 - n - n * (n - 1) // 2]
    assert found.reached == ("subset" if ablation == "zero" else "least")


def test_a_wrong_circuit_is_refused_with_an_input_on_which_it_is_wrong():
    problem = problem_of("and-gate")
    truth = problem.model.sizes["truth"]["resample"]
    found = certify(problem, circuit_of(problem, [e for e in truth if e != "embed->a0.h1.v"]))
    assert not found.equal and found.levels == ()
    case = found.counterexample
    clean, other = (prompt.split()[1:] for prompt in (case.prompt, case.corrupted))
    assert case.model["1"] == pytest.approx(float(clean == ["1", "1"]))
    # The second input is read from the corrupted prompt.
    assert case.circuit["1"] == pytest.approx(float([clean[0], other[1]] == ["1", "1"]))
    assert f"counterexample: {case.prompt}" in certificate_text(found)


def copies(folder, weights, direct=0.0):
    """Save a model that says its symbol, 0 or 1, times the sum of some heads' weights."""
    sizes = sizes_of(
        ("0", "1"), ("value",), length=1, n_layers=1, n_heads=len(weights), d_head=2, d_mlp=1
    )
    wiring = Wiring(sizes, {"token": 3, "position": 2, "output": 1})
    place = torch.eye(2)
    for head, weight in enumerate(weights):
        wiring.head(
            0, head, query={"position": SHARP * place}, key={"position": place},
            value={"token": column(one(3, 2))}, output={"output": weight * torch.ones(1, 1)},
        )  # fmt: skip
    wiring.weights["embed.W_E"][2, wiring.where("output")] = direct
    wiring.sizes["output"] = "numerical"
    wiring.save(folder, "copies")
    return folder / "copies.json"


def path(head):
    return [f"embed->a0.h{head}.v", f"a0.h{head}->logits"]


@pytest.mark.parametrize(
    ("weights", "direct", "edges", "reached", "refused"),
    [
        ((1.0,), 0.0, [*path(0), "embed->m0"], "", "edge"),
        # Two heads that cancel: either alone changes the output, both together do not.
        ((1.0, 2.0, -2.0), 0.0, [*path(0), *path(1), *path(2)], "edge", "pair"),
        # Three that cancel, and no two of them.
        ((9.0, 1.0, 2.0, -3.0), 0.0, [e for h in range(4) for e in path(h)], "pair", "subset"),
        # What the first head writes, the embedding writes too, and the second takes it away.
        ((1.0, -1.0), 1.0, path(0), "subset", "least"),
        ((1.0, -1.0), 1.0, ["embed->logits"], "least", None),
    ],
)
def test_each_level_of_minimality(tmp_path, weights, direct, edges, reached, refused):
    problem = problem_of(copies(tmp_path, weights, direct))
    found = certify(problem, circuit_of(problem, edges))
    assert found.equal and found.reached == reached
    first = next((level for level in found.levels if not level.holds), None)
    assert (first and first.name) == refused
    if first:
        assert first.holds is False
        smaller = circuit_of(problem, first.smaller)
        assert smaller.n_edges < len(edges)
        assert certify(problem, smaller, tries=1).equal


def test_a_level_with_too_many_circuits_is_not_tried_and_says_so():
    problem = problem_of("and-gate")
    truth = circuit_of(problem, problem.model.sizes["truth"]["resample"])
    found = certify(problem, truth, tries=12)
    assert [level.holds for level in found.levels] == [True, True, None, None]
    assert found.reached == "pair" and "16 circuits to try" in certificate_text(found)


def test_labels_are_compared_only_where_the_model_has_one_everywhere():
    reverse, induction = (problem_of(name) for name in ("reverse", "induction-pair"))
    truths = [
        circuit_of(problem, problem.model.sizes["truth"]["zero"])
        for problem in (problem_of("reverse", "zero"), problem_of("induction-pair", "zero"))
    ]
    assert certify(reverse, truths[0], tries=1).compares == "labels"
    found = certify(problem_of("induction-pair", "zero"), truths[1], tries=1)
    assert found.every_input and found.compares == "numbers" and found.equal
    assert induction.graph.n_edges == truths[1].graph.n_edges


def test_with_too_many_inputs_a_bound_on_failures_is_said():
    problem = problem_of("reverse")
    truth = circuit_of(problem, problem.model.sizes["truth"]["resample"])
    found = certify(problem, truth, cases=10)
    assert found.equal and not found.every_input and found.levels == ()
    assert found.failure_bound == pytest.approx(1 - 0.05 ** (1 / 2))
    assert "differs in less than 77.64%" in certificate_text(found)


@pytest.mark.parametrize(("failures", "n"), [(0, 64), (3, 20), (20, 20)])
def test_the_bound_is_the_share_at_which_so_few_failures_have_five_percent(failures, n):
    share = share_bound(failures, n)
    if failures == n:
        assert share == 1
        return
    few = sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(failures + 1))
    assert few == pytest.approx(0.05)


def test_of_a_circuit_at_single_places_the_prompts_are_tried():
    model = cf.load_model("induction-pair", dtype="float64")
    problem = cf.make_problem(model, "induction-pair:once", n_prompts=9, places="named")
    placed = circuit_of(problem, model.sizes["placed"]["resample"])
    found = certify(problem, placed)
    assert found.equal and not found.every_input and found.n_cases == 9


def test_a_file_gets_its_certificate_beside_it(tmp_path):
    problem = problem_of("and-gate")
    origin = {"task": "and-gate", "model": "and-gate", "n_prompts": 2, "seed": 0, "metric": "l2"}
    file = tmp_path / "mine.json"
    Circuit(problem.graph, problem.graph.edge_mask, origin=origin).save(file)
    written, found = certify_run(file)
    assert written == tmp_path / "mine.certificate.json"
    stored = json.loads(written.read_text())
    assert stored["format"] == "circuitfind certificate 1" and stored["equal"] is True
    assert stored["levels"][0]["name"] == "edge" and stored["levels"][0]["holds"] is False
    assert found.levels[0].smaller
