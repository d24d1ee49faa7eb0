"""Whatever a file holds, reading it ends in a value or in one of our errors.

Every case is fixed by its number. In the slow test there are 10,000.
"""

import contextlib
import json
import random
import shutil
from collections import Counter

import pytest
import torch

from circuitfind.budget import BudgetSpentError
from circuitfind.circuit import Circuit, load_circuit
from circuitfind.commands.console import print_tables
from circuitfind.directories.config import RunConfig
from circuitfind.directories.families import FamiliesConfig
from circuitfind.directories.overview import list_runs
from circuitfind.directories.rivals import RivalsConfig
from circuitfind.formats import FORMATS, import_circuit
from circuitfind.models.loading import load_model
from circuitfind.reports.families import families_tables
from circuitfind.sweeps.plan import read_sweep
from circuitfind.tasks import find_task
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.draw import draw_run
from circuitfind.verbs.exchange import export_run, import_file, scored_circuit
from circuitfind.verbs.families import find_families
from circuitfind.verbs.rivals import find_rivals
from tests.fuzz.damage import NASTY_VALUES, damaged, damaged_bytes
from tests.fuzz.guard import Guard, refused
from tests.programs import write_program
from tests.sweeps.conftest import SMALL as SWEEP
from tests.test_graph import GROUPED, SMALL, random_mask

FEW, MANY = 40, 1600


def cases(few: int, many: int) -> pytest.MarkDecorator:
    slow = pytest.param(range(few, many), marks=pytest.mark.slow)
    return pytest.mark.parametrize("numbers", [range(few), slow], ids=["some", "many"])


@pytest.fixture(scope="module")
def guard():
    return Guard()


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return write_program(tmp_path_factory.mktemp("program"), n_outputs=5)


@pytest.fixture(scope="module")
def model(program):
    return load_model(program)


@pytest.fixture(scope="module")
def run(program, model, tmp_path_factory):
    """A finished run and what repeats it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = {"threshold": 0.01}
    config = RunConfig("program", str(program), "acdc", options, metric="l2", n_prompts=8)
    run_discovery(path, config, model=model)
    return path, config


def circuit_of(graph, seed):
    effects = torch.randn(graph.edge_mask.shape, dtype=torch.float64)
    return Circuit(graph, random_mask(graph, seed, 0.2), effects, {"task": "x", "model": "y"})


def read_and_write(read, *arguments, **options):
    return read(*arguments, **options).to_json()


def prompts_of(task, model):
    return find_task(task).write_prompts(model.vocabulary, 4, 0)


@cases(FEW, MANY)
def test_circuit_files(numbers, guard, tmp_path):
    file, said = tmp_path / "circuit.json", Counter()
    content = circuit_of(SMALL, 0).to_json().encode()
    for number in numbers:
        file.write_bytes(damaged(content, random.Random(number)))
        with guard.watching(tmp_path):
            said[refused(read_and_write, load_circuit, file)] += 1
    assert said[True] > said[False]


@pytest.mark.parametrize("name", [known.name for known in FORMATS])
@cases(FEW // 4, MANY // 2)
def test_files_of_other_formats(name, numbers, guard, tmp_path):
    file, said = tmp_path / f"circuit{FORMATS.find(name).suffix}", Counter()
    for number in numbers:
        graph = GROUPED if name == "eap-ig" and number % 2 else SMALL
        content = FORMATS.find(name).write(circuit_of(graph, number)).encode()
        file.write_bytes(damaged(content, random.Random(number)))
        given, chosen = (graph if number % 3 else None), (name if number % 5 else None)
        with guard.watching(tmp_path):
            said[refused(read_and_write, import_circuit, file, given, format_name=chosen)] += 1
    assert said[True] > 0


@cases(FEW, MANY)
def test_compiled_models(numbers, guard, program, tmp_path):
    file, said = tmp_path / "mine.json", Counter()
    weights = file.with_suffix(".safetensors")
    sizes, tensors = program.read_bytes(), program.with_suffix(".safetensors").read_bytes()
    for number in numbers:
        random_number = random.Random(number)
        file.write_bytes(damaged(sizes, random_number) if number % 3 else sizes)
        # Most of the file is numbers, of which any is possible; its head says what they are.
        head = damaged_bytes(tensors[:2000], random_number) + tensors[2000:]
        weights.write_bytes(tensors if number % 3 else head)
        with guard.watching(tmp_path):
            said[refused(load_model, file)] += 1
    assert said[True] > said[False]


@cases(FEW // 6, MANY // 8)
def test_imports_write_into_their_directory_only(numbers, guard, tmp_path):
    for number in numbers:
        file, out = tmp_path / "mine.json", tmp_path / "outs" / str(number)
        file.write_bytes(damaged(circuit_of(SMALL, 1).to_json().encode(), random.Random(number)))
        with guard.watching(out.parent):
            failed = refused(import_file, file, out, graph=None, format_name=None, n_edges=None)
            if not failed:
                refused(export_run, out, "mib-circuits")
                refused(draw_run, out)
        assert out.exists() is not failed


@cases(FEW // 2, MANY)
def test_run_directories(numbers, guard, run, model, tmp_path):
    whole, config = run
    names = sorted(file.name for file in whole.iterdir() if file.suffix in (".json", ".jsonl"))
    for number in numbers:
        random_number, path = random.Random(number), tmp_path / f"run-{number}"
        shutil.copytree(whole, path)
        if number % 2:
            (path / "circuit.json").unlink()
        name = random_number.choice(names)
        before = (whole / name).read_bytes()
        (path / name).write_bytes(damaged(before, random_number))
        with guard.watching(path):
            assert len(list_runs(path)) <= 1
            refused(scored_circuit, path)
            refused(export_run, path, "mib-importances")
            # To search again takes long; every eighth run does.
            if not number % 2 or not number % 8:
                refused(run_discovery, path, config, model=model)
        shutil.rmtree(path)


@cases(FEW // 6, MANY // 16)
def test_interrupted_runs(numbers, guard, run, model, tmp_path):
    whole, config = run
    for number in numbers:
        random_number, path = random.Random(number), tmp_path / f"run-{number}"
        shutil.copytree(whole, path)
        for name in ("circuit.json", "scorecard.json", "diagram.svg", "diagram.dot"):
            (path / name).unlink()
        decisions = (whole / "decisions.jsonl").read_bytes()
        (path / "decisions.jsonl").write_bytes(damaged_bytes(decisions, random_number))
        with guard.watching(path):
            refused(run_discovery, path, config, model=model)
        shutil.rmtree(path)


@pytest.fixture(scope="module", params=["rivals", "families"])
def begun(request, run, model, tmp_path_factory):
    """A search that works on a run, interrupted late, beside the run: its path, and what goes on.

    For rivals in the second restart; for families while held-out prompts are scored.
    """
    path, of_rivals = tmp_path_factory.mktemp("begun"), request.param == "rivals"
    shutil.copytree(run[0], path / "run")
    find, settings = (find_rivals, RivalsConfig(restarts=2))
    if not of_rivals:
        find, settings = find_families, FamiliesConfig(ranked_by="exact")
    with contextlib.suppress(BudgetSpentError):
        find(path / "run", settings, path / "out", model=model, on_progress=_stop_late)
    assert (path / "out" / ("attempts.jsonl" if of_rivals else "passes.jsonl")).stat().st_size
    assert bool(list((path / "out").glob("restart-*"))) is of_rivals
    return path, lambda folder: find(folder / "run", settings, folder / "out", model=model)


def _stop_late(step):
    if step.done > step.total * 0.6:
        raise BudgetSpentError


@cases(FEW // 10, MANY // 16)
def test_interrupted_searches_on_runs(numbers, guard, begun, tmp_path):
    begun, resumed = begun
    names = sorted(file.name for file in (begun / "out").iterdir())
    for number in numbers:
        random_number, path = random.Random(number), tmp_path / f"begun-{number}"
        shutil.copytree(begun, path)
        file = path / "out" / names[number % len(names)]
        file.write_bytes(damaged_bytes(file.read_bytes(), random_number))
        with guard.watching(path):
            refused(resumed, path)
        shutil.rmtree(path)


@pytest.fixture(scope="module")
def families(run, model, tmp_path_factory):
    """Two families, in a directory of a search that is finished."""
    path = tmp_path_factory.mktemp("families")
    find_families(run[0], TWO_FAMILIES, path / "out", model=model)
    return path / "out"


TWO_FAMILIES = FamiliesConfig("exact", families=2)


@cases(FEW, MANY)
def test_files_of_families(numbers, guard, run, families, tmp_path):
    content, path, said = (families / "families.json").read_bytes(), tmp_path / "out", Counter()
    shutil.copytree(families, path)
    for number in numbers:
        (path / "families.json").write_bytes(damaged(content, random.Random(number)))
        with guard.watching(path):
            said[refused(_shown_families, run[0], path)] += 1
    assert said[True] > 0


def _shown_families(run, path):
    found = find_families(run, TWO_FAMILIES, path).families
    print_tables(families_tables(found))
    assert found.labels() and found.to_frame() is not None and found.as_json()


TASK = [
    {"clean": f"a b {x}", "corrupted": f"b a {x}", "answer": "c", "wrong_answer": "a"}
    for x in "abc"
]
AS_CSV = "clean,corrupted,answer,wrong_answer\n" + "\n".join(
    ",".join(f'"{value}"' for value in pair.values()) for pair in TASK
)


@cases(FEW, MANY)
def test_task_files(numbers, guard, model, tmp_path):
    texts = {".jsonl": "\n".join(map(json.dumps, TASK)) + "\n", ".csv": AS_CSV}
    for number in numbers:
        suffix, random_number = (".csv" if number % 3 else ".jsonl"), random.Random(number)
        file, content = tmp_path / f"mine{suffix}", texts[suffix].encode()
        if suffix == ".jsonl" and number % 2:
            lines = content.splitlines()
            lines[1] = damaged(lines[1], random_number)
            content = b"\n".join(lines)
        else:
            content = damaged_bytes(content, random_number)
        file.write_bytes(content)
        with guard.watching(tmp_path):
            refused(prompts_of, str(file), model)


@cases(FEW, MANY)
def test_sweep_files(numbers, guard, program):
    file = program.with_name("fuzzed.toml")
    for number in numbers:
        random_number = random.Random(number)
        if number % 2:
            file.write_bytes(damaged_bytes(SWEEP.encode(), random_number))
        else:
            file.write_text(as_toml(random_number), encoding="utf-8", errors="replace")
        with guard.watching(program.parent):
            refused(read_sweep, file)


def as_toml(random_number: random.Random) -> str:
    """A sweep file in which some entries have values that make no sense."""
    entries = {
        "models": ["scramble.json"], "tasks": ["program"], "seeds": [0, 1], "prompts": 4,
        "metric": "kl", "ablation": "zero", "device": "cpu", "dtype": "float64",
    }  # fmt: skip
    method = {"thresholds": [0.1], "order": "random", "edges": [4], "steps": 3}
    for table in (entries, method):
        for name in random_number.sample(sorted(table), random_number.randint(0, 3)):
            value = random_number.choice(NASTY_VALUES)
            table[name] = random_number.choice((value, [value], [value, value]))
    name = random_number.choice(["acdc", "exact", "eap-ig", "hybrid", "x"])
    kept = random_number.sample(sorted(method), random_number.randint(0, 4))
    lines = [f"{key} = {_toml(value)}" for key, value in entries.items()]
    return "\n".join([*lines, f"[methods.{name}]", *(f"{k} = {_toml(method[k])}" for k in kept)])


def _toml(value: object) -> str:
    if isinstance(value, float):
        return repr(value)
    return "{}" if value is None or isinstance(value, dict) else json.dumps(value)
