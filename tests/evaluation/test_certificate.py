"""Certificates: what is proved on all inputs is so, and each level of minimality is right."""

import itertools
import json
import re
from contextlib import suppress
from dataclasses import replace
from math import comb

import pytest
import torch
from torch.nn import functional

import circuitfind as cf
from circuitfind.ablations import ABLATIONS
from circuitfind.circuit import Circuit, load_circuit
from circuitfind.directories.directory import digest_of
from circuitfind.directories.work import stored_result
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, ModelError, TaskError
from circuitfind.evaluation import certify as verb
from circuitfind.evaluation import every_input
from circuitfind.evaluation.certificate import Certificate
from circuitfind.evaluation.certify import certify
from circuitfind.evaluation.every_input import drawn_cases, every_case
from circuitfind.evaluation.exhaustive import n_sets
from circuitfind.evaluation.intervals import share_bound
from circuitfind.evaluation.levels import Tried, levels
from circuitfind.evaluation.refutation import Refutations
from circuitfind.models.handmade import WIRED
from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of
from circuitfind.prompts import Pair, collate
from circuitfind.reports.certificate import certificate_text
from circuitfind.rounding.numbers import Unproved
from circuitfind.tasks.corpus import TRAINED
from circuitfind.verbs.certify import FORMAT, certify_run
from tests.engine.problems import random_mask

PROGRAMS = ("program", *WIRED)


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
    steps = {}
    found = certify(
        problem, truth, tries=1200, on_progress=lambda at: steps.setdefault(at.step, []).append(at)
    )
    assert (found.equal, found.n_cases, found.failure_bound) == (True, cases, 0.0)
    n = truth.n_edges
    tried = [level.n_tried for level in found.levels[:3]]
    assert tried == [n, n * (n - 1) // 2, 2**n - 1 - n - n * (n - 1) // 2]
    # Progress counts every set of edges up to the last one, also those with dead ends.
    totals = [cases, *tried, *[sum(comb(13, size) for size in range(n))] * (ablation != "zero")]
    assert [(at[-1].done, at[-1].total) for at in steps.values()] == [(t, t) for t in totals]
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
    assert all(level.proved for level in found.levels if level.holds)
    if first:
        assert first.holds is False and first.proved
        smaller = circuit_of(problem, first.smaller)
        assert smaller.n_edges < len(edges)
        assert certify(problem, smaller, tries=1).equal


def test_a_level_with_too_many_circuits_is_not_tried_and_says_so():
    problem = problem_of("and-gate")
    truth = circuit_of(problem, problem.model.sizes["truth"]["resample"])
    found = certify(problem, truth, tries=12)
    assert [level.holds for level in found.levels] == [True, True, None, None]
    assert found.reached == "pair" and "more than 12 circuits to try" in certificate_text(found)


def test_the_number_of_sets_is_counted_up_to_what_is_allowed_and_no_further():
    assert n_sets(5, range(6), 32) == 32
    assert n_sets(5, range(6), 31) is None
    # As many edges as GPT-2 small has: the number itself has 9,781 digits.
    assert n_sets(32_491, range(32_492), 20_000) is None


def test_labels_are_compared_where_the_model_has_one():
    reverse, induction = (problem_of(name, "zero") for name in ("reverse", "induction-pair"))
    found = certify(reverse, circuit_of(reverse, reverse.model.sizes["truth"]["zero"]), tries=1)
    assert (found.equal, found.compares, found.n_ties) == (True, "labels", 0)
    tokens = torch.cartesian_prod(*[torch.tensor([1, 2, 3, 4])] * 7)
    assert induction.model.vocabulary.symbols.keys() == set("abcd")
    with torch.no_grad():
        best = induction.model.own_logits(torch.nn.functional.pad(tokens, (1, 0)))
    best = best[:, induction.prompts.steps[0]].topk(2).values
    n_ties = int((best[..., 0] - best[..., 1] < 1e-9).any(-1).sum())
    truth = circuit_of(induction, induction.model.sizes["truth"]["zero"])
    found = certify(induction, truth, tries=1)
    assert (found.equal, found.n_inputs, found.n_ties) == (True, len(tokens), n_ties)
    said = f"equal up to rounding in {n_ties:,} of 16,384 cases: numbers are compared"
    assert said in certificate_text(found)
    # Where the model says one symbol, the circuit without its second head says another.
    wrong = certify(induction, Circuit(induction.graph, torch.zeros_like(truth.kept)), tries=1)
    assert not wrong.equal and wrong.n_ties == n_ties


@pytest.mark.parametrize("name", ["llama-4l", *WIRED])
def test_the_full_circuit_is_equal_to_its_model(name):
    model, asked = cf.load_model(name), set()
    for task in [name] if name in WIRED else [t.name for t in cf.TASKS if t.name not in PROGRAMS]:
        # A task of words that its tokenizer merges cannot be asked.
        with suppress(TaskError):
            problem = cf.make_problem(model, task, n_prompts=8)
            circuit = Circuit(problem.graph, problem.graph.edge_mask)
            for ablation in ABLATIONS:
                # No mean position by position of prompts of unequal lengths.
                if ablation.name != "mean" or not problem.prompts.padded:
                    found = certify(
                        replace(problem, ablation=ablation), circuit, cases=2000, tries=1
                    )
                    assert found.equal, (task, ablation.name, found)
                    asked.add(task)
    words = {*(task.name for task in TRAINED), "addition"}
    assert asked == ({name} if name in WIRED else words)


@pytest.mark.parametrize("name", WIRED)
def test_rounding_of_models_wired_by_hand_is_proved(name):
    problem = problem_of(name, "zero")
    truth = circuit_of(problem, problem.model.sizes["truth"]["zero"])
    found = certify(problem, truth, cases=2000, tries=1)
    assert (found.equal, found.rounding_proved, found.unproved) == (True, True, "")
    assert 0 < found.rounding < 1e-7 and found.allowed == 1e-6
    assert f"rounding: proved to be at most {found.rounding:.3g}\n" in certificate_text(found)


@pytest.mark.parametrize(
    ("activation", "tolerance", "why"),
    [
        (
            lambda inner: functional.hardtanh(inner, 0, torch.inf),
            1e-6,
            "no bound for the operation hardtanh",
        ),
        (torch.relu, 1e-13, "the bound, .*e-13, is above the tolerance of 1e-13"),
    ],
)
def test_where_nothing_bounds_the_rounding_it_is_measured_and_the_reason_is_said(
    activation, tolerance, why
):
    problem = problem_of("and-gate")
    problem.model._activation = activation
    everything = Circuit(problem.graph, problem.graph.edge_mask)
    found = certify(problem, everything, tolerance=tolerance, tries=1)
    assert found.equal and not found.rounding_proved
    assert re.fullmatch(why, found.unproved)
    assert f"(measured; not proved: {found.unproved})" in certificate_text(found)


LOUD = 1000 * torch.ones(2, 2)
NOISY = (torch.eye(2), LOUD, -LOUD)


def two_outputs(folder, direct, heads=NOISY):
    """Save a model whose heads each map its symbol, 0 or 1, to two outputs, and its embedding too.

    By default the first head says the symbol, and two others cancel but for rounding.
    """
    n = len(heads)
    sizes = sizes_of(("0", "1"), ("0", "1"), length=1, n_layers=1, n_heads=n, d_head=2, d_mlp=1)
    wiring = Wiring(sizes, {"token": 3, "position": 2, "output": 2})
    place, symbol = torch.eye(2), torch.eye(3)[:, 1:]
    for head, output in enumerate(heads):
        wiring.head(
            0, head, query={"position": SHARP * place}, key={"position": place},
            value={"token": symbol}, output={"output": output},
        )  # fmt: skip
    wiring.weights["embed.W_E"][:, wiring.where("output")] = symbol @ direct
    wiring.save(folder, "two")
    return problem_of(folder / "two.json", "zero")


FAINT = ["embed->logits", *path(1), *path(2)]


def test_a_label_that_is_above_by_less_than_the_rounding_is_not_called_equal(tmp_path, monkeypatch):
    def of(faint):
        problem = two_outputs(tmp_path, faint * torch.eye(2))
        return certify(problem, circuit_of(problem, FAINT), tries=1)

    found = of(1.0)
    assert found.equal and found.smallest_margin == pytest.approx(1.0)
    bound = found.margin_needed
    assert of(2 * bound).equal and of(2 * bound).rounding_proved
    found = of(bound / 2)
    assert found.rounding_proved and not found.equal
    assert found.smallest_margin == pytest.approx(bound / 2, rel=0.1)
    # It is not proved to differ either.
    assert (found.n_different, found.n_open, found.failure_bound) == (0, 2, 1.0)
    said = certificate_text(found)
    assert said.startswith("not proved to be equal to the model: in 2 of 2 inputs rounding could")
    assert "a case in which neither is proved: BOS 0\n" in said
    # What is measured is less.
    monkeypatch.setattr(verb, "bounded", unproved)
    found = of(bound / 2)
    assert found.equal and found.rounding < bound / 2


def unproved():
    raise Unproved("nothing")


def test_a_circuit_is_proved_to_differ_only_if_rounding_cannot_change_that(tmp_path):
    def proves(faint, masks, row=1, memory=None):
        problem = two_outputs(tmp_path, faint * torch.eye(2))
        masks = [problem.graph.mask_of(edges) for edges in masks]
        by = torch.zeros(len(masks), len(problem.prompts))
        by[:, row] = 1.0
        return Refutations(1e-6, memory, labels=True).of(problem, masks, by)

    right, wrong, none = path(0), FAINT, []
    # The embedding says the other symbol: more, less than the rounding, or the same one.
    assert proves(-1e-3, [wrong, wrong]) == ([True, True], True)
    assert proves(-1e-17, [wrong]) == ([True], False)
    assert proves(1e-3, [wrong]) == ([False], True)
    assert proves(-1e-3, [wrong, right]) == ([True, False], True)
    # With little memory each has a pass of its own.
    assert proves(-1e-3, [wrong, right], memory=1) == ([True, False], True)
    # A tie of zeros, which are known exactly.
    assert proves(-1e-3, [none]) == ([True], True)


ONE = torch.tensor([[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("heads", "direct", "edges", "holds"),
    [
        # Without the second head it says the same symbol by 1e-3: as measured the model has none.
        ((1e-3 * ONE, -1e-3 * ONE), [1e-12, 100.0], [*path(0), *path(1)], False),
        # Without the head it says nothing; as measured that is equal to 1e-12.
        ((1e-12 * ONE,), [0.0, 100.0], path(0), True),
    ],
)
def test_levels_say_what_certificates_say(tmp_path, heads, direct, edges, holds):
    problem, steps = two_outputs(tmp_path, torch.tensor(direct).diag(), heads), []
    circuit = circuit_of(problem, ["embed->logits", *edges])
    found = certify(problem, circuit, tries=40, on_progress=lambda at: steps.append(at.step))
    assert found.equal and found.rounding_proved
    assert found.levels[0].holds is holds and found.levels[0].proved
    assert found.reached_with_proof == found.reached == ("least" if holds else "")
    for level in found.levels:
        if level.smaller:
            smaller = certify(problem, circuit_of(problem, level.smaller), tries=1)
            assert smaller.equal and smaller.rounding_proved
    # A certificate of a smaller circuit is a part of its level.
    assert len(list(itertools.groupby(steps))) == len(set(steps))


def test_a_level_in_which_rounding_could_decide_is_open():
    problem = problem_of("and-gate")
    circuit = circuit_of(problem, problem.model.sizes["truth"]["resample"])

    class Unsure:
        def first_equal(self, masks, on_tried):
            return Tried(None, len(list(masks)), proved=False, n_open=2)

    check = Unsure()
    check.problem = problem
    found = replace(certify(problem, circuit, tries=1), levels=tuple(levels(check, circuit, 2000)))
    assert [level.holds for level in found.levels] == [None] * 4 and found.reached == ""
    said = certificate_text(found)
    assert "edge: open (of 2 circuits neither is proved: equal, or different)\n" in said
    assert "pair: not tried (of 2 circuits" in said


def test_what_holds_as_measured_is_not_said_to_be_proved():
    # Where the first of two symbols is read evenly with the second, no bound proves the tie.
    problem = problem_of("two-circuits", "zero")
    circuit = circuit_of(problem, problem.model.sizes["truth"]["zero"])
    found = certify(problem, circuit, tries=10)
    assert (found.reached, found.reached_with_proof) == ("subset", "")
    said = certificate_text(found)
    assert "edge: no single edge can be cut (3 tried, each differs as measured)\n" in said
    assert "pair: no two edges can be cut (3 tried, each proved to differ)\n" in said
    assert "level of minimality reached: subset (measured; with proof: none)\n" in said


def test_with_little_memory_rounding_is_proved_in_parts(monkeypatch):
    problem = problem_of("and-gate")
    circuit = circuit_of(problem, problem.model.sizes["truth"]["resample"])
    sizes, of = [], verb._Check._outputs
    monkeypatch.setattr(
        verb._Check,
        "_outputs",
        lambda self, engine, kept: sizes.append(len(engine.chunks)) or of(self, engine, kept),
    )
    found = certify(problem, circuit, tries=1, memory="5MB")
    assert found.equal and found.rounding_proved
    assert len(sizes) > 1 and set(sizes) == {1}
    found = certify(problem_of("and-gate", "mean"), circuit, tries=1, memory="5MB")
    assert "share a mean" in found.unproved
    # A third of this is enough for an engine, half of that is not.
    found = certify(problem, circuit, tries=1, memory="1MB")
    assert found.equal and "this takes at least 258 kB" in found.unproved


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_circuits_with_a_prompt_each_are_computed_as_on_all_prompts(ablation):
    model = cf.load_model("and-gate", dtype="float64")
    problem = cf.make_problem(model, "program", n_prompts=16, ablation=ablation)
    masks = [random_mask(problem.graph, seed, 0.8) for seed in range(len(problem.prompts))]
    finals = list(IncrementalEngine(problem).finals(masks))
    expected = torch.stack([final[row] for row, final in enumerate(finals)])
    full, ours = Refutations(1e-6, None, labels=True)._outputs(problem, problem, masks)
    at_steps = problem.prompts.at_steps
    torch.testing.assert_close(ours, at_steps(problem.model.logits(expected)), rtol=0, atol=1e-9)
    own = problem.model.own_logits(problem.prompts.clean)
    torch.testing.assert_close(full, at_steps(own), rtol=0, atol=1e-9)


def test_a_prompt_with_two_rows_differs_if_one_of_them_does():
    model = cf.load_model("ioi-small", dtype="float64")
    random, other = (torch.Generator().manual_seed(seed) for seed in (0, 1))

    def draw(n):
        return torch.randint(5, 290, (n,), generator=random).tolist()

    pairs = [Pair(draw(6), draw(6), [[draw(2)]], [[draw(2)]]) for _ in range(12)]
    problem = cf.make_problem(model, collate(pairs))
    full, prompts = problem.graph.edge_mask, problem.prompts
    kept = (torch.rand(full.shape, generator=other) < 0.9) & full
    engine = IncrementalEngine(problem)
    ours, said = (
        prompts.at_steps(model.logits(engine.recomputed(mask))).argmax(-1) for mask in (kept, full)
    )
    differs = ((ours != said) & prompts.step_is_real).any(-1).view(12, 2)
    assert bool((differs[:, 0] != differs[:, 1]).any())
    assert certify(problem, Circuit(problem.graph, kept)).n_different == int(differs.any(1).sum())


def test_a_certificate_is_the_same_with_little_memory():
    problem = cf.make_problem(cf.load_model("ioi-small"), "ioi", n_prompts=8)
    full, random = problem.graph.edge_mask, torch.Generator().manual_seed(0)
    circuit = Circuit(problem.graph, (torch.rand(full.shape, generator=random) < 0.85) & full)
    whole = certify(problem, circuit)
    assert 0 < whole.n_different < whole.n_cases
    little = certify(problem, circuit, memory="8MB")
    assert little.n_different == whole.n_different
    assert little.largest_difference == pytest.approx(whole.largest_difference, rel=1e-4)
    assert little.counterexample.prompt == whole.counterexample.prompt
    with pytest.raises(MethodError, match="1 kB are allowed"):
        certify(problem, circuit, memory="1kB")


def test_what_is_in_memory_at_once_shares_it(monkeypatch):
    """The first batch of cases is kept, and one is there while the next one is built."""
    problem, given = problem_of("and-gate"), []
    monkeypatch.setattr(every_input, "_TOGETHER", 4)
    engine = verb.IncrementalEngine
    monkeypatch.setattr(
        verb, "IncrementalEngine", lambda *args: given.append(args[1]) or engine(*args)
    )
    truth = circuit_of(problem, problem.model.sizes["truth"]["resample"])
    assert certify(problem, truth, tries=1, memory=3 * 10**8).n_cases == 16
    # Where numbers have radii, they take twice the memory.
    assert set(given) == {10**8, 5 * 10**7} and given.count(10**8) > 2 < given.count(5 * 10**7)


def test_a_model_whose_outputs_are_not_numbers_has_no_certificate(tmp_path):
    problem = problem_of(copies(tmp_path, (1.0,)))
    problem.model._weights["embed.W_E"][2] = torch.nan
    with pytest.raises(ModelError, match="outputs are not finite numbers on some of the inputs"):
        certify(problem, circuit_of(problem, path(0)))


def test_with_too_many_inputs_a_bound_on_failures_is_said():
    problem = problem_of("reverse")
    truth = circuit_of(problem, problem.model.sizes["truth"]["resample"])
    found = certify(problem, truth, cases=1000)
    assert found.equal and not found.every_input and found.levels == ()
    assert found.failure_bound == pytest.approx(1 - 0.05 ** (1 / 1000))
    said = certificate_text(found)
    assert "on 1,000 random cases" in said and "of all cases it differs in at most 0.299%" in said


@pytest.mark.parametrize(("ablation", "n"), [("resample", 16), ("zero", 4)])
def test_cases_are_drawn_with_the_same_chance(ablation, n):
    problem = problem_of("and-gate", ablation)
    drawn = list(drawn_cases(problem, 16_000))
    rows = torch.cat([torch.cat([each.clean, each.corrupted], dim=1) for each in drawn])
    seen, counts = rows.unique(dim=0, return_counts=True)
    assert len(rows) == 16_000 and len(seen) == n
    every = torch.cat([torch.cat([e.clean, e.corrupted], dim=1) for e in every_case(problem)])
    assert torch.equal(seen, every.unique(dim=0)) and len(every) == n
    # Five standard deviations of a count.
    share = 1 / n
    assert (counts - 16_000 * share).abs().max() < 5 * (16_000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("n", [1, 7, 2000])
def test_cases_of_two_lengths_are_as_many_as_asked_for_and_in_proportion(n):
    problem = problem_of("and-gate")
    pairs = [Pair([0, 1], [0, 2], [[0]]), Pair([0, 1, 2], [0, 2, 2], [[0]])]
    problem = replace(problem, prompts=collate(pairs))
    counts = {int(each.lengths[0]): len(each) for each in drawn_cases(problem, n)}
    assert sum(counts.values()) == n
    # Two inputs of one bit have 4 pairs, four of two bits 16.
    assert abs(counts.get(2, 0) - n / 5) <= 5 * (n * 0.2 * 0.8) ** 0.5
    every = [len(each) for each in every_case(problem)]
    assert sorted(every) == [4, 16]


def test_where_cases_share_a_mean_none_are_drawn():
    problem = problem_of("reverse", "mean")
    circuit = Circuit(problem.graph, problem.graph.edge_mask)
    found = certify(problem, circuit, cases=10)
    assert (found.equal, found.prompts, found.n_cases) == (True, "given", 2)
    assert "on prompts like these, with the mean of these, it differs" in certificate_text(found)


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


def saved(problem, file, **origin):
    origin = {"model": "and-gate", "n_prompts": 2, "seed": 0, **origin}
    Circuit(problem.graph, problem.graph.edge_mask, origin=origin).save(file)
    return file


def test_a_file_gets_its_certificate_beside_it(tmp_path):
    file = saved(problem_of("and-gate"), tmp_path / "mine.json", task="and-gate")
    written, found = certify_run(file, tries=300)
    assert written == tmp_path / "mine.certificate.json"
    stored = json.loads(written.read_text())
    assert stored["format"] == "circuitfind certificate 1" and stored["equal"] is True
    assert stored["levels"][0]["name"] == "edge" and stored["levels"][0]["holds"] is False
    assert found.levels[0].smaller and found.prompts == "all"
    assert stored["circuit"] == digest_of(load_circuit(file))
    assert stored["settings"] == {"cases": 100_000, "tries": 300, "tolerance": 1e-6}
    # A file of before these entries is read, and a certificate is what was written.
    assert stored_result(written, Certificate, FORMAT) == found
    for name in ("circuit", "settings", "n_ties", "prompts", "unproved"):
        del stored[name]
    written.write_text(json.dumps(stored))
    assert stored_result(written, Certificate, FORMAT) == replace(found, prompts="given")


def test_the_bound_is_that_of_prompts_which_no_search_has_seen_where_there_are_any(tmp_path):
    model = cf.load_model("ioi-small")
    problem = cf.make_problem(model, "ioi", n_prompts=6)
    origin = {"model": "ioi-small", "n_prompts": 6, "task": "ioi"}
    question = cf.RunConfig("ioi", "ioi-small", "acdc", {"threshold": 0.1}, n_prompts=6)
    file = saved(problem, tmp_path / "known.json", **origin)
    _, found = certify_run(file)
    assert found == replace(
        certify(question.held_out(model), load_circuit(file)), prompts="held-out"
    )
    assert "equal to the model on 6 held-out prompts" in certificate_text(found)
    # The prompts of the search have outputs of another size.
    assert found.rounding != certify(problem, load_circuit(file)).rounding
    task = tmp_path / "mine.jsonl"
    names = [("Mary", "John"), ("John", "Mary")]
    pairs = [{"clean": f"Then {a}", "corrupted": f"Then {b}", "answer": b} for a, b in names]
    task.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    own = saved(problem, tmp_path / "own.json", **origin | {"task": str(task)})
    assert "the circuit was found on these very prompts" in certificate_text(certify_run(own)[1])
