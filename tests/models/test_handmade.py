"""Models wired by hand do what they say, and searches find the circuits that they state."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import circuitfind
from circuitfind.ablations import ABLATIONS
from circuitfind.api import discover
from circuitfind.granularity import heads_and_mlps
from circuitfind.models.handmade import FOLDERS, OF_SUITES, WIRED
from circuitfind.models.loading import load_model
from circuitfind.models.zoo import HANDMADE, zoo_path
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from circuitfind.tasks import find_task
from circuitfind.tasks.train_programs import FOLDER, LEARNED, every_input, says, train
from tests.oracles.compiled import CompiledOracle

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
CASES = [(name, ablation.name) for name in WIRED for ablation in ABLATIONS]


def hist(text):
    counts = Counter(text)
    return [[float(counts[symbol] == n) for n in range(1, 6)] for symbol in text]


def one_hot(symbol, symbols):
    return [float(symbol == other) for other in symbols]


def followers(text, symbols):
    """The mean of what came after earlier occurrences of each symbol, or nothing."""
    said = []
    for i, symbol in enumerate(text):
        after = [text[j + 1] for j in range(i) if text[j] == symbol]
        said.append([after.count(other) / max(1, len(after)) for other in symbols])
    return said


def not_the_current(text):
    """Which of the first two symbols is not the current one; their mean if both are, or neither."""
    said = []
    for symbol in text:
        others = [each for each in text[:2] if each != symbol]
        chosen = others if len(others) == 1 else text[:2]
        said.append([chosen.count(each) / len(chosen) for each in "abc"])
    return said


def half_of_the_first_or_second(text):
    said = [one_hot(text[0 if each == "x" else 1], ("BOS", *"abcxy")) for each in text]
    if text[0] != "x":
        # The second symbol is not seen yet, so BOS is as good as the first.
        said[0] = [(a + b) / 2 for a, b in zip(
            one_hot(text[0], ("BOS", *"abcxy")), one_hot("BOS", ("BOS", *"abcxy")), strict=True
        )]  # fmt: skip
    return [[value / 2 for value in row] for row in said]


def before(text, n):
    return [one_hot(text[i - n] if i >= n else None, "abc") for i in range(len(text))]


def first_unique(text):
    single = [symbol for symbol in text if text.count(symbol) == 1]
    return [one_hot(single[0] if single else None, "abc")] * len(text)


def state_of_brackets(text):
    said, depths = (
        [],
        [text[:end].count("(") - text[:end].count(")") for end in range(1, len(text) + 1)],
    )
    for end, depth in enumerate(depths, 1):
        wrong = min(depths[:end]) < 0
        said.append([float(not wrong and depth == 0), float(not wrong and depth > 0), float(wrong)])
    return said


def a_before_b(text):
    return [one_hot("a" if "a" in text[:i] and text[i] == "b" else None, "abc") for i in range(5)]


def where_the_largest_stand(text):
    said = [float(symbol == max(text)) for symbol in text]
    return [[each / sum(said) for each in said]] * len(text)


MEANING = {
    "reverse": ("012", (1, 2, 3, 4), lambda t: [one_hot(s, "012") for s in reversed(t)]),
    "hist": ("abc", (5, 3), hist),
    "xproportion": ("wxy", (5,), lambda t: [[t[: i + 1].count("x") / (i + 1)] for i in range(5)]),
    "induction-pair": ("abcd", (7,), lambda t: followers(t, "abcd")),
    "and-gate": ("01", (2,), lambda t: [[float(t == ("1", "1"))]] * 2),
    "or-gate": ("01", (2,), lambda t: [[float("1" in t)]] * 2),
    "backup-head": ("abc", (3,), lambda t: [one_hot(t[0], "abc")] * 3),
    "two-circuits": ("abc-", (2,), lambda t: [[80 * each for each in one_hot(t[0], "abc")]] * 2),
    "xor-gate": ("01", (2,), lambda t: [[float(t[0] != t[1])]] * 2),
    "majority": ("01", (3,), lambda t: [[float(t.count("1") > 1)]] * 3),
    "and-or": ("01", (3,), lambda t: [[float(t[:2] == ("1", "1") or t[2] == "1")]] * 3),
    "two-back": ("abc", (5,), lambda t: before(t, 2)),
    "maximum": ("1234", (2, 4), lambda t: [one_hot(max(t), "1234")] * len(t)),
    "pointer": ("1234", (4,), lambda t: [one_hot(t[int(t[0]) - 1], "1234")] * 4),
    "other-name": ("abc", (4,), not_the_current),
    "negative-copy": ("abcxy", (3,), half_of_the_first_or_second),
    "sort": ("123", (4,), lambda t: [one_hot(symbol, "123") for symbol in sorted(t)]),
    "first-unique": ("abc", (3, 4), first_unique),
    "first-seen": ("abc", (5,), lambda t: [[float(s not in t[:i])] for i, s in enumerate(t)]),
    "exactly-one": ("01", (3,), lambda t: [[0.25 + (t.count("1") == 1)]] * 3),
    "parity": ("01", (4, 2), lambda t: [[t.count("1") % 2.0]] * len(t)),
    "balance": ("()", (4,), state_of_brackets),
    "modular-addition": ("0123", (2,), lambda t: [one_hot(str(sum(map(int, t)) % 4), "0123")] * 2),
    "three-back": ("abc", (5,), lambda t: before(t, 3)),
    "skip-trigram": ("abc", (5,), a_before_b),
    "where-largest": ("1234", (4,), where_the_largest_stand),
    "pointer-twice": ("1234", (4,), lambda t: [one_hot(t[int(t[int(t[0]) - 1]) - 1], "1234")] * 4),
}

LEARNS = {
    "maximum": ("12345", 4, lambda t: [one_hot(max(t), "12345")] * 4),
    "sort": ("123", 4, MEANING["sort"][2]),
    "unique": ("abc", 5, lambda t: [[float(t.count(s) == 1), float(t.count(s) > 1)] for s in t]),
    "modular-addition": ("01234", 2, lambda t: [one_hot(str(sum(map(int, t)) % 5), "01234")] * 2),
    "brackets": ("()", 6, state_of_brackets),
}
TRAINED = sorted(FOLDER.glob("*.json"))


def path_of(name):
    folder = next(folder for folder, models in FOLDERS.items() if name in models)
    return Path(circuitfind.__file__).parent / folder / f"{name}.json"


@pytest.mark.parametrize("name", [*WIRED, *OF_SUITES])
def test_it_computes_what_it_says(name):
    model = load_model(path_of(name))
    symbols, lengths, meaning = MEANING[name]
    for length in lengths:
        texts = list(itertools.product(symbols, repeat=length))[:: 7 if length == 7 else 1]
        tokens = torch.tensor([model.vocabulary.encode(" ".join(text)) for text in texts])
        expected = torch.tensor([meaning(text) for text in texts])
        assert (model.own_logits(tokens)[:, 1:] - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_acdc_finds_the_stated_circuit_over_the_stated_thresholds(name, ablation):
    check_truth(name, ablation, n_thresholds=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_acdc_finds_the_stated_circuit_at_thirty_thresholds_between(name, ablation):
    check_truth(name, ablation, n_thresholds=30)


def check_truth(name: str, ablation: str, n_thresholds: int) -> None:
    problem = make_problem(load_model(name, dtype="float64"), name, ablation=ablation)
    truth, (low, high) = (problem.model.sizes[key] for key in ("truth", "thresholds"))
    for step in range(n_thresholds):
        threshold = low * (high / low) ** (step / (n_thresholds - 1))
        found = {edge.name for edge in discover(problem, threshold=threshold).circuit.edges}
        assert found == set(truth[ablation]), threshold


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_cutting_edges_alone_finds_those_that_are_stated(name, ablation):
    problem = make_problem(load_model(name, dtype="float64"), name, ablation=ablation)
    sizes = problem.model.sizes
    expected = set(sizes.get("alone", {}).get(ablation, sizes["truth"][ablation]))
    found = discover(problem, "exact", threshold=1e-6)
    effects = {decision.edge: abs(decision.effect or 0) for decision in found.decisions}
    assert {edge for edge, effect in effects.items() if effect >= 1e-6} == expected
    # One head of two-circuits leaves 1e-17 of the probability to other symbols; all else is exact.
    assert max((e for edge, e in effects.items() if edge not in expected), default=0) < 1e-16


@pytest.mark.parametrize("ablation", ["resample", "zero"])
@pytest.mark.parametrize("name", [*WIRED, *OF_SUITES])
def test_the_truth_says_all_that_the_model_says_and_no_edge_of_it_can_be_spared(name, ablation):
    """By an oracle that adds up streams from their definition and knows nothing of the engine."""
    circuits = circuits_that_say_all(name, ablation)
    assert len(circuits) == 1 + (name == "two-circuits" or (name, ablation) == BACKUP)


BACKUP = ("backup-head", "zero")


@pytest.mark.parametrize(
    ("name", "ablation"), [BACKUP, ("two-circuits", "resample"), ("two-circuits", "zero")]
)
def test_a_stated_rival_is_as_large_as_the_truth_and_shares_no_edge_with_it(name, ablation):
    truth, rival = circuits_that_say_all(name, ablation)
    assert len(truth) == len(rival) and not truth & rival


def circuits_that_say_all(name, ablation):
    """Return the stated circuits, each of which says what the model says and spares no edge."""
    model, task = load_model(path_of(name)), find_task(name if name in WIRED else "program")
    prompts = task.write_prompts(model.vocabulary, 64, 3)
    graph = heads_and_mlps(model.shape)
    oracle = CompiledOracle(path_of(name), graph, prompts.clean, prompts.corrupted, ablation)
    everything = [edge.name for edge in graph.edges()]

    def said(edges):
        outputs = oracle.outputs(edges)[:, 1:]
        return outputs.softmax(-1) if task.metric == "kl" else outputs

    stated = [model.sizes["truth"][ablation], *model.sizes.get("rivals", {}).get(ablation, [])]
    for circuit in map(set, stated):
        assert (said(circuit) - said(everything)).abs().max() < 1e-6
        assert oracle.needed(circuit) == circuit
    return [set(circuit) for circuit in stated]


def test_the_page_states_what_the_models_do():
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| (\d+) \| (\d+) \| (\S+) to (\S+) \|$",
                      PAGE.read_text(encoding="utf-8"), re.M)  # fmt: skip
    assert {name for name, *_ in rows} == set(WIRED)
    for name, resample, more, low, high in rows:
        sizes = load_model(name).sizes
        truth = sizes["truth"]
        assert len(truth["resample"]) == len(truth["mean"]) == int(resample)
        assert set(truth["mean"]) == set(truth["resample"]) <= set(truth["zero"])
        assert len(truth["zero"]) - len(truth["resample"]) == int(more)
        assert sizes["thresholds"] == [float(low), float(high)]


@pytest.mark.parametrize("ablation", [each.name for each in ABLATIONS])
@pytest.mark.parametrize("name", OF_SUITES)
def test_acdc_and_exact_find_the_stated_circuit_of_models_of_suites(name, ablation):
    model = load_model(path_of(name), dtype="float64")
    check_suite_model(model, ablation)


def check_suite_model(model, ablation):
    problem = make_problem(model, "program", ablation=ablation)
    expected = set(model.sizes["truth"][ablation])
    for threshold in model.sizes["thresholds"]:
        found = {edge.name for edge in discover(problem, threshold=threshold).circuit.edges}
        assert found == expected, threshold
    alone = discover(problem, "exact", threshold=1e-6)
    assert {each.edge for each in alone.decisions if abs(each.effect or 0) > 1e-6} == expected


@pytest.mark.parametrize("ablation", [each.name for each in ABLATIONS])
@pytest.mark.parametrize("file", TRAINED, ids=lambda file: file.stem)
def test_searches_find_what_readers_of_trained_models_were_given(file, ablation):
    model = load_model(file, dtype="float64")
    check_suite_model(model, ablation)
    graph = heads_and_mlps(model.shape)
    read = connected(model, load_file(file.with_suffix(".safetensors")))
    of_bystanders = {edge.name for edge in graph.edges() if ".h1" in edge.reader.name}
    assert set(model.sizes["truth"]["zero"]) == read - of_bystanders


@pytest.mark.parametrize("file", TRAINED, ids=lambda file: file.stem)
def test_trained_models_are_right_on_all_inputs(file):
    """By the definitions of the programs wired by hand that do the same, where there is one."""
    model = load_model(file)
    symbols, length, meaning = LEARNS[file.stem[:-2]]
    texts = list(itertools.product(symbols, repeat=length))
    tokens = torch.tensor([model.vocabulary.encode(" ".join(text)) for text in texts])
    expected = torch.tensor([meaning(text) for text in texts])
    assert torch.equal(model.own_logits(tokens)[:, 1:].argmax(-1), expected.argmax(-1))


def test_training_gives_a_model_that_is_right():
    design = LEARNED["modular-addition"]
    wiring = train(design, 0)
    tokens, right = every_input(design)
    assert torch.equal(says(wiring.weights, wiring, tokens)[:, 1:].argmax(-1), right)
    bystander = wiring.weights["blocks.0.attn.W_O"][1]
    assert bystander.any() and not bystander[:, wiring.where("output")].any()


@pytest.mark.parametrize("name", [*WIRED, *OF_SUITES])
def test_the_truth_is_among_the_edges_that_the_weights_connect(name):
    model = load_model(path_of(name))
    stated = {edge for edges in model.sizes["truth"].values() for edge in edges}
    assert stated <= connected(model, load_file(path_of(name).with_suffix(".safetensors")))


@pytest.mark.parametrize("name", [*WIRED, *OF_SUITES])
def test_the_shipped_files_are_those_that_the_code_makes(name, tmp_path):
    {**WIRED, **OF_SUITES}[name]().save(tmp_path, name)
    shipped = path_of(name)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == json.loads(shipped.read_text())
    made, kept = (
        load_file(path.with_suffix(".safetensors")) for path in (tmp_path / f"{name}.json", shipped)
    )
    assert made.keys() == kept.keys()
    assert all(torch.equal(made[key], kept[key]) for key in made)


def test_every_model_wired_by_hand_has_a_task_of_its_name():
    assert list(WIRED) == list(HANDMADE)
    for name in WIRED:
        assert find_task(name).model == name
        assert path_of(name) == zoo_path(name)


def test_acdc_misses_half_of_an_or_gate_whose_inputs_are_both_on():
    """Cut one input and the other still says 1; cut both and the answer is gone."""
    problem = make_problem(load_model("or-gate"), "or-gate:both")
    route = {"embed->a0.h0.v", "a0.h0->m0", "m0->logits"}
    for threshold in (1e-6, 1e-3, 0.1):
        found = {edge.name for edge in discover(problem, threshold=threshold).circuit.edges}
        assert found == route
    effects = discover(problem, "exact", threshold=1e-6).decisions
    assert {each.edge for each in effects if abs(each.effect or 0) > 1e-6} == {"m0->logits"}


def test_the_or_gate_is_found_in_the_other_direction_and_the_and_gate_in_this_one():
    """From both off to both on, any input makes the difference for OR, and none alone for AND."""
    for name, swapped in (("or-gate", True), ("and-gate", False)):
        model = load_model(name)
        prompts = find_task(f"{name}:both").write_prompts(model.vocabulary, 4, 0)
        if swapped:
            prompts = exchanged(prompts)
        found = discover(make_problem(model, prompts, metric="l2"), threshold=0.01)
        assert {edge.name for edge in found.circuit.edges} == set(model.sizes["truth"]["resample"])


def test_the_backup_takes_over_when_the_first_head_is_silent():
    problem = make_problem(
        load_model("backup-head", dtype="float64"), "backup-head", ablation="zero"
    )
    graph = problem.graph
    engine = discover(problem, threshold=1e-3).engine
    silent = ["a0.h0->logits", "a0.h0->a1.h0.q"]
    state = engine.start()
    for name in silent:
        edge = graph.edge(name)
        writer, reader = graph.index(edge)
        state = engine.cut(state, [(writer, reader)])
        if name == silent[0]:
            assert float(engine.loss(state)) > 0.5
    assert float(engine.loss(state)) < 1e-20


def exchanged(prompts):
    pairs = zip(prompts.corrupted.tolist(), prompts.clean.tolist(), strict=True)
    return collate([Pair(clean, corrupted, [(), ()], steps=[1, 2]) for clean, corrupted in pairs])


def connected(model, weights) -> set[str]:
    """Return the edges whose reader's weights see any of what the writer can write."""

    def span(*matrices):
        return torch.cat([m.abs().reshape(-1, m.shape[-1]) for m in matrices]).sum(0)

    def writes(name):
        if name == "embed":
            return span(weights["embed.W_E"], weights["pos_embed.W_pos"])
        layer, _, head = name[1:].partition(".h")
        if head:
            return span(weights[f"blocks.{layer}.attn.W_O"][int(head)])
        return span(weights[f"blocks.{layer}.mlp.W_out"])

    def reads(name):
        if name == "logits":
            return span(weights["unembed.W_U"].T)
        layer, _, rest = name[1:].partition(".h")
        if rest:
            head, port = rest.split(".")
            return span(weights[f"blocks.{layer}.attn.W_{port.upper()}"][int(head)].T)
        return span(weights[f"blocks.{layer}.mlp.W_in"].T)

    return {
        edge.name
        for edge in heads_and_mlps(model.shape).edges()
        if float(writes(edge.writer.name) @ reads(edge.reader.name)) > 0
    }
