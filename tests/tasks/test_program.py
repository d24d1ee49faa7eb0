import pytest
import torch

from circuitfind.api import discover
from circuitfind.errors import TaskError
from circuitfind.evaluation.scorecard import scorecard
from circuitfind.models.compiled import SymbolVocabulary, load_compiled
from circuitfind.models.loading import load_vocabulary
from circuitfind.models.wiring import SHARP, Wiring, column, one, sizes_of
from circuitfind.question import make_problem
from circuitfind.tasks import find_task
from circuitfind.tasks.program import PROGRAM, WIRED
from tests.programs import write_program


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    file = write_program(tmp_path_factory.mktemp("program"), n_ctx=5)
    return load_compiled(file, "cpu", None).vocabulary


def test_inputs_are_random_symbols_as_many_as_the_program_reads(vocabulary):
    prompts = PROGRAM.write_prompts(vocabulary, 50, 0)
    assert prompts.clean.shape == (50, 5)
    assert (prompts.clean[:, 0] == vocabulary.bos).all()
    assert set(prompts.clean[:, 1:].flatten().tolist()) == set(vocabulary.symbols.values())
    assert (prompts.clean != prompts.corrupted).any(dim=1).all()


def test_outputs_are_compared_at_every_position_but_the_first(vocabulary):
    prompts = PROGRAM.write_prompts(vocabulary, 2, 0)
    assert prompts.steps.tolist() == [[1, 2, 3, 4]] * 2
    assert prompts.answers.numel() == 0


def test_a_program_without_a_first_symbol_is_compared_everywhere():
    prompts = PROGRAM.write_prompts(SymbolVocabulary(None, None, {"x": 3, "y": 4}, 2), 3, 0)
    assert prompts.steps.tolist() == [[0, 1]] * 3


def test_the_same_seed_gives_the_same_inputs_and_fewer_are_the_first_of_more(vocabulary):
    assert list(PROGRAM.write(vocabulary, 5, 3)) == list(PROGRAM.write(vocabulary, 9, 3))[:5]
    assert list(PROGRAM.write(vocabulary, 5, 3)) != list(PROGRAM.write(vocabulary, 5, 4))


@pytest.mark.parametrize(("symbols", "length"), [({"x": 1}, 5), ({"x": 1, "y": 2}, 1)])
def test_a_program_without_two_inputs_is_refused(symbols, length):
    with pytest.raises(TaskError, match="need at least 2 symbols and 1 position"):
        PROGRAM.write_prompts(SymbolVocabulary(None, 0, symbols, length), 1, 0)


@pytest.mark.parametrize("name", ["reverse", "hist", "xproportion"])
def test_the_circuit_of_a_compiled_program_is_among_the_edges_that_compose(name, shared):
    model = load_compiled(shared / "models" / "tracr" / f"{name}.json", "cpu", None)
    found = discover(make_problem(model, "program", ablation="zero"), threshold=0.001)
    edges = {edge.name for edge in found.circuit.edges}
    assert edges <= set(model.sizes["composition_edges"])
    assert scorecard(found.engine, found.circuit).measurements[0].faithfulness > 0.99


def test_inputs_whose_last_symbol_occurred_once_before_name_where():
    task = find_task("induction-pair:once")
    for pair in task.write(load_vocabulary("induction-pair"), 200, 0):
        at = pair.positions
        for tokens in (pair.clean, pair.corrupted):
            assert [i for i in range(1, 8) if tokens[i] == tokens[7]] == [at["first"], at["end"]]
        # What is said differs, and no key of the other prompt fits this one's query.
        assert pair.clean[at["next"]] != pair.corrupted[at["next"]]
        assert pair.clean[7] not in pair.corrupted
    with pytest.raises(TaskError, match="has 3 input symbols and reads 4 of them; .* at least 4"):
        task.write_prompts(load_vocabulary("reverse"), 1, 0)


def test_the_corrupted_inputs_of_two_circuits_need_a_symbol_of_which_it_says_nothing():
    task = find_task("two-circuits")
    for pair in task.write(load_vocabulary("two-circuits"), 50, 0):
        assert pair.corrupted[1:] == [4, pair.clean[2]] != pair.clean[1:]
    with pytest.raises(TaskError, match="one symbol of these inputs is - and this program reads"):
        task.write(load_vocabulary("reverse"), 4, 0)


# ------------------------------------------------- programs that one length says nothing about


def length_program(folder, *, longest=4):
    """Say 1 / (length + 1) everywhere: a0.h0 attends to all alike and reads where BOS is."""
    sizes = sizes_of("ab", ["share"], longest, n_layers=1, n_heads=2, d_head=1, d_mlp=0)
    wiring = Wiring(sizes, {"token": 3, "position": longest + 1, "output": 1})
    wiring.head(
        0, 0, query={}, key={}, value={"token": column(one(3, 0))},
        output={"output": torch.ones(1, 1)},
    )  # fmt: skip
    wiring.save(folder, "length")
    return load_compiled(folder / "length.json", "cpu", torch.float64)


def short_b_program(folder):
    """Say whether the first symbol is b, but nothing of inputs with all four symbols.

    a0.h0 measures the length, a0.h1 fetches the first symbol, m0 says relu(b + 10 share - 3).
    """
    sizes = sizes_of("ab", ["b"], 4, n_layers=1, n_heads=2, d_head=1, d_mlp=1)
    spaces = {"token": 3, "position": 5, "share": 1, "b": 1, "output": 1}
    wiring = Wiring(sizes, spaces)
    wiring.head(
        0, 0, query={}, key={}, value={"token": column(one(3, 0))},
        output={"share": torch.ones(1, 1)},
    )  # fmt: skip
    wiring.head(
        0, 1, query={}, query_bias=[SHARP], key={"position": column(one(5, 1))},
        value={"token": column(one(3, 2))}, output={"b": torch.ones(1, 1)},
    )  # fmt: skip
    wiring.unit(0, 0, {"b": [1.0], "share": [10.0]}, -3.0, {"output": [1.0]})
    wiring.save(folder, "short")
    return load_compiled(folder / "short.json", "cpu", torch.float64)


def found_in(model, **settings):
    problem = make_problem(model, "program", **settings)
    return {edge.name for edge in discover(problem, threshold=1e-4).circuit.edges}


def test_a_program_that_says_its_length_gets_inputs_of_every_length(tmp_path):
    prompts = PROGRAM.write_prompts(length_program(tmp_path).vocabulary, 64, 0)
    assert set(prompts.lengths.tolist()) == {2, 3, 4, 5}
    assert (prompts.step_is_real.sum(1) == prompts.lengths - 1).all()


@pytest.mark.parametrize("ablation", ["zero", "mean-over-positions"])
def test_the_circuit_of_a_program_that_says_its_length_is_found(ablation, tmp_path):
    assert found_in(length_program(tmp_path), ablation=ablation) == {
        "embed->a0.h0.v",
        "a0.h0->logits",
    }


def test_the_circuit_of_a_program_that_ignores_the_longest_inputs_is_found(tmp_path):
    model = short_b_program(tmp_path)
    long = torch.tensor([[0, 2, 1, 1, 1], [0, 1, 2, 2, 1]])
    assert not model.own_logits(long).any() and model.own_logits(long[:, :4]).any()
    found = found_in(model)
    assert found == {"embed->a0.h1.v", "a0.h1->m0", "m0->logits"}


def test_a_program_that_says_the_same_on_all_inputs_is_refused(tmp_path):
    model = length_program(tmp_path)
    model._weights["blocks.0.attn.W_O"].zero_()
    with pytest.raises(TaskError, match="says the same on 64 random inputs of every length, so no"):
        make_problem(model, "program")


@pytest.mark.parametrize("name", [f"{t.name}:{c}" if c else t.name for t in WIRED
                                  for c in ("", *t.corruptions)])  # fmt: skip
def test_ten_thousand_inputs_of_every_program_are_aligned_and_corrupted(name):
    task = find_task(name)
    vocabulary = load_vocabulary(name.partition(":")[0])
    symbols = set(vocabulary.symbols.values())
    for pair in task.write(vocabulary, 10_000, 1):
        assert len(pair.clean) == len(pair.corrupted) == vocabulary.n_positions
        assert pair.clean != pair.corrupted
        assert pair.clean[0] == pair.corrupted[0] == vocabulary.bos
        assert {*pair.clean[1:], *pair.corrupted[1:]} <= symbols
