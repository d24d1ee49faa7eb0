import pytest

from circuitfind.errors import TaskError
from circuitfind.evaluation.scorecard import scorecard
from circuitfind.models.compiled import SymbolVocabulary, load_compiled
from circuitfind.models.loading import load_vocabulary
from circuitfind.runs.api import discover, make_problem
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
