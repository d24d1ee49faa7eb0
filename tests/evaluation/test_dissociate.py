"""Effects of knock-outs are those of brute force, and disjoint circuits dissociate exactly."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import circuitfind as cf
from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitfindError, GraphError, LimitError, MethodError, PromptError
from circuitfind.evaluation.dissociate import Design, Member, _difference, dissociate
from circuitfind.evaluation.dissociation import Effect
from circuitfind.evaluation.random_circuits import random_circuits
from circuitfind.evaluation.text import text_problem
from circuitfind.metrics import LOGIT_DIFFERENCE, custom_metric
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of
from circuitfind.problem import assemble
from circuitfind.prompts import collate
from circuitfind.reports.dissociation import dissociation_tables, draw_dissociation
from circuitfind.verbs.comparison_pairs import Loaded
from circuitfind.verbs.dissociate import _named
from tests.engine.problems import N_LAYERS, loss_of, problem_of, prompts_of, random_mask
from tests.oracles.brute_force import BruteForce
from tests.oracles.checkpoints import build
from tests.type_checks import types_checked

LINES = "3 1 4 1 5\n9 2 6\n\n8"
"""A text for a tokenizer that reads numbers; its last line has no next token."""


class Numbers:
    """A tokenizer whose tokens are the numbers of a text."""

    def encode(self, text, **_):
        return [int(word) for word in text.split()]

    def decode(self, tokens):
        return " ".join(map(str, tokens))


@pytest.fixture(scope="module")
def members():
    """Two circuits of a tiny model that share edges, on prompts of their own."""
    found = []
    for seed in (0, 1):
        problem = problem_of("gpt2", metric=LOGIT_DIFFERENCE)
        problem = replace(problem, prompts=prompts_of(seed + 1))
        circuit = Circuit(problem.graph, random_mask(problem.graph, seed, 0.3))
        found.append(Member(f"task {seed}", circuit, problem))
    return found


@pytest.fixture
def text(members, monkeypatch):
    model = members[0].problem.model
    monkeypatch.setattr(model, "vocabulary", Vocabulary(Numbers()))
    return text_problem(model, members[0].circuit.graph, LINES)


def test_every_effect_is_that_of_brute_force(members, text):
    found, model = dissociate(Design(members, text, n_random=2)), build("gpt2", n_layers=N_LAYERS)
    graph = members[0].circuit.graph
    losses = {}
    for member in members:
        prompts = member.problem.prompts
        oracle = BruteForce(model, "gpt2", prompts.clean, prompts.corrupted, graph)
        loss = loss_of("logit-difference", oracle, prompts)
        losses[member.name] = lambda mask, o=oracle, f=loss: -f(o.logits(mask))
    losses["text"] = lambda mask: next_token_loss(model, graph, mask)
    everything = graph.edge_mask
    for name, value_of in losses.items():
        full, empty = value_of(everything), value_of(torch.zeros_like(everything))
        column = next(each for each in found.columns if each.name == name)
        assert (column.full, column.empty) == pytest.approx((full, empty), abs=1e-9)
        for member in members:
            kept = member.circuit.kept
            drawn = random_circuits(member.circuit, 2, null="size")
            values = [value_of(everything & ~each) for each in (kept, *(d.kept for d in drawn))]
            shares = [(full - value) / (full - empty) for value in values]
            cell = found.of(member.name, name)
            assert cell.value == pytest.approx(values[0], abs=1e-9)
            assert cell.effect == pytest.approx(shares[0], abs=1e-8)
            assert cell.random == pytest.approx(sum(shares[1:]) / 2, abs=1e-8)
            assert cell.p_value == (1 + sum(share >= shares[0] for share in shares[1:])) / 3
    assert found.pairs[0].n_shared == int((members[0].circuit.kept & members[1].circuit.kept).sum())
    # Two prompts give no interval, so nothing is said of the pair.
    assert found.pairs[0].verdict is None


def test_the_order_of_circuits_and_other_members_change_no_effect(members):
    third = replace(members[0], name="third", problem=members[1].problem)
    one, two, three = *members, third
    whole = dissociate(Design([one, two, three], n_random=2))
    turned = dissociate(Design([three, one, two], n_random=2))
    alone = dissociate(Design([one, two], n_random=2))
    assert {(e.circuit, e.on): e for e in whole.effects} == {
        (e.circuit, e.on): e for e in turned.effects
    }
    assert [each.name for each in turned.circuits] == ["third", "task 0", "task 1"]
    assert all(whole.of(each.circuit, each.on) == each for each in alone.effects)
    assert whole.pairs[0] == alone.pairs[0]


def test_own_edges_are_those_that_no_other_circuit_has(members):
    kept = [member.circuit.kept for member in members]
    found = dissociate(Design(members, own_edges=True, n_random=1))
    apart = [
        replace(member, circuit=replace(member.circuit, kept=mask & ~(kept[0] & kept[1])))
        for member, mask in zip(members, kept, strict=True)
    ]
    expected = dissociate(Design(apart, n_random=1))
    assert found.own_edges and found.effects == expected.effects
    assert [each.n_edges for each in found.circuits] == [m.circuit.n_edges for m in apart]
    # What both have is counted in the circuits themselves.
    assert found.pairs[0].n_shared > expected.pairs[0].n_shared == 0


@pytest.fixture(scope="module")
def two_copies(tmp_path_factory):
    """A model with two tasks: a0.h0 says the first symbol, and a0.h1 the second one."""
    sizes = sizes_of(("0", "1"), ("first", "second"), length=2, n_layers=1, n_heads=2, d_head=1, d_mlp=0)  # fmt: skip  # noqa: E501
    wiring = Wiring(sizes, {"token": 3, "position": 3, "output": 2})
    for head in (0, 1):
        wiring.head(
            0, head, query={}, query_bias=[SHARP], key={"position": column(one(3, head + 1))},
            value={"token": column(one(3, 2))}, output={"output": torch.tensor([one(2, head)])},
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("two")
    wiring.save(folder, "two")
    return cf.load_model(folder / "two.json", dtype="float64")


def members_of_two(model, circuits=(0, 1)):
    found = []
    for task, head in enumerate(circuits):
        metric = custom_metric(lambda logits, task=task: logits[:, 0, task], name=f"output {task}")
        # No prompt is in both tasks.
        clean = [[0, 2, 1], [0, 1, 2]][task]
        pairs = [cf.Pair(clean, [0, 1, 1], [[task]]) for _ in range(8)]
        problem = assemble(model, collate(pairs), metric)
        circuit = Circuit.of_edges(problem, [f"embed->a0.h{head}.v", f"a0.h{head}->logits"])
        found.append(Member(f"task {task}", circuit, problem))
    return found


def test_disjoint_circuits_dissociate_doubly_and_exactly(two_copies):
    steps = []
    design = Design(members_of_two(two_copies), n_random=3)
    found = dissociate(design, on_progress=steps.append)
    # Some of the random circuits of so small a graph are the same.
    assert [step.done for step in steps] == list(range(1, design.n_passes + 1))
    effects = {(e.circuit, e.on): (e.effect, e.low, e.high) for e in found.effects}
    for circuit, on in effects:
        share = float(circuit == on)
        assert effects[circuit, on] == pytest.approx((share, share, share), abs=1e-9)
    (pair,) = found.pairs
    assert pair.verdict == "double" and pair.n_shared == 0
    for each in pair.differences:
        assert (each.value, each.low, each.high) == pytest.approx((1, 1, 1), abs=1e-9)
    assert "1 of 1 pairs dissociate doubly" in repr(found)


def test_nothing_is_said_of_tasks_without_intervals_and_the_reason_is(two_copies):
    one, two = members_of_two(two_copies)
    shared = [*[cf.Pair([0, 1, 2], [0, 1, 1], [[1]])] * 7, cf.Pair([0, 2, 1], [0, 1, 1], [[1]])]
    both = replace(two, problem=replace(two.problem, prompts=collate(shared)))
    few = replace(
        two, problem=replace(two.problem, prompts=two.problem.prompts.select(list(range(7))))
    )
    same = [cf.Pair([0, 1, 2], [0, 1, 1], [[1]])] * 8
    deaf = custom_metric(lambda logits: 0 * logits[:, 0, 0], name="nothing")
    none = replace(two, problem=assemble(two_copies, collate(same), deaf))
    # Without the second circuit a fifth is left, all of it on one prompt of eight.
    odd = [*same[:7], cf.Pair([0, 2, 2], [0, 1, 1], [[1]])]
    sum_of = custom_metric(lambda logits: 2 * logits[:, 0, 0] + logits[:, 0, 1], name="sum")
    alike = replace(two, problem=assemble(two_copies, collate(odd), sum_of))
    for other, why, value in (
        (both, "same prompts", 1),
        (alike, "prompts too much alike", 0.8),
        (few, "too few prompts", 1),
        (none, "no gap", None),
    ):
        found = dissociate(Design([one, other], n_random=1))
        (pair,) = found.pairs
        assert (pair.verdict, pair.undecided) == (None, why)
        assert [each.low for each in pair.differences] == [None, None]
        assert pair.differences[1].value == (value and pytest.approx(value))
        *_, table = dissociation_tables(found)
        assert list(table.columns[-1].cells) == [why]


def test_one_circuit_on_two_tasks_dissociates_nothing(two_copies):
    members = members_of_two(two_copies, (0, 0))
    (pair,) = dissociate(Design(members, n_random=3)).pairs
    # It does the one task and not the other, so cutting it hurts the one alone.
    assert pair.verdict == "single" and pair.n_shared == 2
    assert [each.value for each in pair.differences] == pytest.approx([1, -1], abs=1e-9)
    same = [replace(members[0], name=name) for name in ("one", "other")]
    (pair,) = dissociate(Design(same, n_random=3)).pairs
    assert pair.undecided == "same prompts"
    assert [each.value for each in pair.differences] == pytest.approx([0, 0], abs=1e-9)


def test_a_small_difference_is_no_dissociation_however_certain():
    own = Effect("a", "a", 0.0, 1.0, 0.99, 1.02, 0.0, 0.1)
    far = Effect("a", "b", 0.0, 0.5, 0.46, 0.53, 0.0, 0.1)
    found = _difference(own, far)
    # Zou & Donner 2008, by hand.
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 - (0.01**2 + 0.03**2) ** 0.5)
    assert found.high == pytest.approx(0.5 + (0.02**2 + 0.04**2) ** 0.5)


def test_the_result_is_read_from_json_csv_table_and_drawing(two_copies):
    members = members_of_two(two_copies)
    asked = {each.name: (each.problem, each.circuit) for each in members}
    found = cf.dissociation(asked, draws=3)
    assert found == dissociate(Design(members, n_random=3))
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [(row["circuit"], row["on"]) for row in rows] == [
        (each.circuit, each.on) for each in found.effects
    ]
    assert float(rows[0]["effect"]) == found.effects[0].effect
    assert [len(list(table.rows)) for table in dissociation_tables(found)] == [2, 2, 1]
    drawn = draw_dissociation(found).svg()
    assert "task 0 on task 1" in drawn and drawn.count(">1.00<") == drawn.count(">0.00<") == 2
    with pytest.raises(MethodError, match="no effect of 'x' on 'y' was measured"):
        found.of("x", "y")


def test_what_has_no_dissociation_is_refused(two_copies, members):
    one, two = members_of_two(two_copies)
    for given, message in (
        ([one], "a dissociation needs two circuits or more, of different tasks, not 1"),
        ([one, replace(two, name="task 0")], "is called 'task 0', and so is another circuit"),
        ([one, replace(two, circuit=Circuit.of_edges(two.problem, []))], "'task 1' is empty"),
        ([one, members[1]], "are circuits of different models"),
    ):
        with pytest.raises(MethodError, match=message):
            Design(given)
    # A task may be called so where there is no text.
    called = [one, replace(two, name="text")]
    assert len(Design(called).columns) == 2
    with pytest.raises(MethodError, match="is called 'text', and so is the column of the text"):
        Design(called, text=one.problem)
    with pytest.raises(LimitError, match="draws must be"):
        Design([one, two], n_random=0)
    merged = problem_of("gpt2", merge_qkv=True)
    other = Member("other", Circuit(merged.graph, merged.graph.edge_mask), merged)
    said = (
        "'other' does not have the graph of 'task 0' .*; give runs with the same parts and places"
    )
    with pytest.raises(GraphError, match=said):
        Design([members[0], other])
    with pytest.raises(GraphError, match="'task 0' does not have the graph of 'task 0'"):
        Design([replace(members[0], problem=merged), members[1]])
    with pytest.raises(
        MethodError, match="'b' has 1 values; give what `discover` found, or a pair"
    ):
        cf.dissociation({"a": (one.problem, one.circuit), "b": (two.problem,)})
    with (
        types_checked(check=False),
        pytest.raises(CircuitfindError, match="give a mapping to what `discover` found"),
    ):
        cf.dissociation([one, two])


def test_circuits_are_named_by_their_tasks_where_that_tells_them_apart(two_copies):
    (member, _) = members_of_two(two_copies)

    def names(tasks, text=None):
        about = {"model": "m", "n_prompts": 1, "seed": 0}
        circuits = [replace(member.circuit, origin={"task": task, **about}) for task in tasks]
        loaded = [Loaded(Path("x"), f"run {n}", "", c, None) for n, c in enumerate(circuits)]
        return [name for _, name in _named(loaded, text)]

    assert names(["ioi", "/where/text.jsonl"]) == ["ioi", "text"]
    assert names(["ioi", "/where/text.jsonl"], text="file") == ["run 0", "run 1"]
    assert names(["ioi", "ioi"]) == ["run 0", "run 1"]


def test_a_text_that_cannot_be_read_is_refused(two_copies, members, text, monkeypatch):
    graph, model = members[0].circuit.graph, members[0].problem.model
    assert text.prompts.n_prompts == 2
    with pytest.raises(PromptError, match="no line of the text has two tokens"):
        text_problem(model, graph, "8\n\n9\n")
    with pytest.raises(PromptError, match="tell places apart, which a text does not have"):
        text_problem(model, graph.at_places(["a", "b"]), LINES)
    with pytest.raises(PromptError, match="has no tokenizer to read a text with"):
        text_problem(two_copies, one_graph(two_copies), LINES)
    monkeypatch.setattr(model, "n_positions", 1)
    with pytest.raises(PromptError, match="reads a single token"):
        text_problem(model, graph, LINES)


def one_graph(model):
    return cf.heads_and_mlps(model.shape)


def next_token_loss(model, graph, mask):
    """Return the loss of the next token of `LINES`, written apart from `circuitfind.metrics`."""
    rows = [[int(word) for word in line.split()] for line in LINES.splitlines()[:2]]
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    real = torch.tensor([[at < len(row) for at in range(width)] for row in rows])
    oracle = BruteForce(model, "gpt2", tokens, tokens, graph, "mean-over-positions", real)
    chances = oracle.logits(mask).log_softmax(-1)
    means = [
        -sum(float(chances[n, at, token]) for at, token in enumerate(row[1:])) / (len(row) - 1)
        for n, row in enumerate(rows)
    ]
    return sum(means) / len(means)


def test_long_lines_are_cut_and_long_texts_thinned_evenly(members, monkeypatch):
    graph, model = members[0].circuit.graph, members[0].problem.model
    monkeypatch.setattr(model, "vocabulary", Vocabulary(Numbers(), bos=7))
    monkeypatch.setattr("circuitfind.evaluation.text.LONGEST", 4)
    prompts = text_problem(model, graph, LINES).prompts
    rows = zip(prompts.clean.tolist(), prompts.lengths.tolist(), strict=True)
    # Each piece begins with the token that starts sequences, so a single token has a loss.
    assert [row[:n] for row, n in rows] == [[7, 3, 1, 4], [7, 1, 5], [7, 9, 2, 6], [7, 8]]
    assert prompts.answers[0, :, 0].tolist() == [3, 1, 4]
    monkeypatch.setattr("circuitfind.evaluation.text.MOST", 2)
    assert text_problem(model, graph, LINES).prompts.clean[:, 1].tolist() == [3, 9]
