"""Methods from outside the package, with options of their own, run like those of the table."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

import circuitfind as cf
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.base import THRESHOLD, Decision, Progress, StepwiseMethod
from circuitfind.methods.scored import Scored
from circuitfind.progress import Checkpoint


@dataclass(frozen=True)
class RoundsOptions:
    """Settings: how often the least needed half of the edges is cut.

    Attributes:
        rounds: How many rounds.
        smallest: Whether edges with the smallest effects are cut, rather than the largest.
    """

    rounds: int
    smallest: bool = True

    def __post_init__(self) -> None:
        require(repetitions=self.rounds)


class Rounds(StepwiseMethod):
    """Cuts half of what is left, by the effect of each edge alone, a number of times."""

    name = "rounds"
    summary = "cut half of the edges at a time"
    paper = "a test"
    options = RoundsOptions

    def run(
        self, engine: IncrementalEngine, options: RoundsOptions, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Search, yielding after each round."""
        state, total, done = engine.start(), engine.graph.n_edges, 0
        left = [edge.name for edge in engine.graph.edges()]
        for number in range(options.rounds):
            half = left[: len(left) // 2] if number + 1 < options.rounds else left
            decisions = resume[done : done + len(half)]
            if len(decisions) < len(half):
                effects = self._effects(engine, state, left)
                ranked = sorted(left, key=effects.__getitem__, reverse=not options.smallest)
                last = number + 1 == options.rounds
                decisions = tuple(
                    Decision(name, last, "tested", effect=effects[name])
                    for name in ranked[: len(half)]
                )
                yield Progress(done + len(decisions), total, decisions)
            done += len(decisions)
            gone = {each.edge for each in decisions if not each.kept}
            state, left = engine.cut(state, sorted(gone)), [n for n in left if n not in gone]
        yield Progress(total, total, (), drift=engine.drift(state))

    def _effects(self, engine, state, names):
        before = engine.loss(state)
        return {name: engine.loss(engine.cut(state, name)) - before for name in names}


@dataclass(frozen=True)
class TauOptions:
    """Settings: an edge is kept if it alone is worth so much.

    Attributes:
        tau: Least effect.
    """

    tau: float = 0.01


class ByTau(StepwiseMethod):
    """Keeps edges by their effect alone; its threshold has another name."""

    name = "by-tau"
    summary = "keep each edge that is worth tau alone"
    paper = "a test"
    options = TauOptions

    def run(self, engine, options, resume=()):
        """Search in one step."""
        state, total = engine.start(), engine.graph.n_edges
        before = engine.loss(state)
        decisions = []
        for edge in engine.graph.edges():
            after = engine.loss(engine.cut(state, edge))
            kept = after - before >= options.tau
            decisions.append(Decision(edge.name, kept, "tested", before, after, after - before))
        yield Progress(total, total, tuple(decisions))


@dataclass(frozen=True)
class LoudestOptions:
    """Settings: which norm of a change counts.

    Attributes:
        norm: Its order.
    """

    norm: int = 2


class Loudest(Scored):
    """Ranks edges by how much what their writers write changes from prompt to prompt."""

    name = "loudest"
    summary = "keep the edges out of the writers that change most"
    paper = "a test"
    options = LoudestOptions

    def scoring(self, engine, options, state=None):
        """Yield the scores in one step."""
        start, writers = engine.start(), range(len(engine.graph.writers))
        sizes = torch.stack(
            [engine.gap(start, writer).norm(options.norm).double().cpu() for writer in writers]
        )
        scores = sizes[:, None].expand(engine.graph.edge_mask.shape)
        yield Checkpoint(1, 1, "passes", {"scores": scores})


@pytest.fixture(autouse=True)
def registered(monkeypatch) -> None:
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    for method in (Rounds(), ByTau(), Loudest()):
        METHODS.add(method)


@pytest.fixture
def problem(program) -> cf.Problem:
    return cf.make_problem(cf.load_model(program), "program", n_prompts=8, metric="l2")


def words(program, method: str, *more: object) -> list[object]:
    options = ["--prompts", 8, "--metric", "l2", "--out", method]
    return ["discover", "program", "--model", program, "--method", method, *options, *more]


def circuit_in(path) -> cf.Circuit:
    return cf.load_circuit(path / "circuit.json")


def test_a_stepwise_method_without_threshold_runs_from_python_and_the_command_line(
    cli, program, problem, tmp_path
):
    found = cf.discover(problem, "rounds", rounds=3)
    assert 0 < found.circuit.n_edges < problem.graph.n_edges // 3
    assert cli(*words(program, "rounds", "--rounds", 3)).code == 0
    assert circuit_in(tmp_path / "rounds").edges == found.circuit.edges
    settings = json.loads((tmp_path / "rounds" / "config.json").read_text())
    assert settings["options"] == {"rounds": 3, "smallest": True}
    assert settings["selection"] == {"prune": True}
    largest = words(program, "rounds", "--rounds=2", "--no-smallest", "--keep-dead-ends")
    assert cli(*largest, "--out", "largest").code == 0
    other = cf.discover(problem, "rounds", rounds=2, smallest=False, prune=False)
    assert circuit_in(tmp_path / "largest").edges == other.circuit.edges


@pytest.mark.parametrize("n_lines", [0, 5, 23, 30, 46])
def test_it_resumes_bit_for_bit(n_lines, cli, program, tmp_path):
    command = words(program, "rounds", "--rounds", 3)
    assert cli(*command).code == 0
    whole = tmp_path / "rounds"
    decisions = (whole / "decisions.jsonl").read_bytes()
    shutil.copytree(whole, tmp_path / "whole")
    for file in whole.iterdir():
        if file.name not in ("config.json", "environment.json"):
            file.unlink()
    lines = decisions.splitlines(keepends=True)
    (whole / "decisions.jsonl").write_bytes(b"".join(lines[:n_lines]))
    assert cli(*command).code == 0
    for name in ("decisions.jsonl", "circuit.json"):
        assert (whole / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("rounds", ["--rounds", 3, "--threshold", 0.1], "'rounds' has no threshold and ranks no"),
        ("rounds", ["--rounds", 3, "--edges", 9], "'rounds' has no threshold and ranks no"),
        ("rounds", [], "the method 'rounds' needs the option 'rounds'"),
        ("rounds", ["--rounds", 0], "repetitions must be a whole number"),
        ("rounds", ["--rounds", "few"], "the option 'rounds' is of type int"),
        ("acdc", ["--rounds", 3], "the method 'acdc' has no option 'rounds'; its options are thr"),
    ],
)
def test_what_it_cannot_be_asked_is_refused(method, more, said, cli, program, complaint):
    complaint(cli(*words(program, method, *more)), said)


def test_a_threshold_is_what_the_method_marks_as_one(cli, program, monkeypatch, tmp_path):
    plain = words(program, "by-tau")
    assert cli(*plain).code == 0
    # Unmarked, it is an option like any other.
    assert cli(*plain, "--threshold", 0.5, "--out", "x").code == 2
    marked = TauOptions.__dataclass_fields__["tau"]
    monkeypatch.setattr(marked, "metadata", THRESHOLD)
    assert cli(*plain, "--threshold", 0.5, "--out", "half").code == 0
    assert cli(*plain, "--target-edges", 9, "--out", "nine").code == 0
    assert json.loads((tmp_path / "half/config.json").read_text())["options"] == {"tau": 0.5}
    listed = {row["run"]: row["threshold"] for row in cli("runs", ".", "--json").json}
    assert listed["half"] == 0.5 and listed["by-tau"] == 0.01
    best = json.loads((tmp_path / "nine/thresholds.json").read_text())["trials"]
    assert all(listed[f"nine/{row['run']}"] == float(row["run"][10:]) for row in best)


def test_a_scorer_has_options_of_its_own_and_the_common_selection(cli, program, problem, tmp_path):
    found = cf.discover(problem, "loudest", n_edges=12, walk="greedy", norm=1)
    command = words(program, "loudest", "--edges", 12, "--walk", "greedy", "--option", "norm=1")
    assert cli(*command).code == 0
    assert circuit_in(tmp_path / "loudest").edges == found.circuit.edges
    settings = json.loads((tmp_path / "loudest" / "config.json").read_text())
    assert settings["options"] == {"norm": 1}
    assert (settings["selection"]["n_edges"], settings["selection"]["walk"]) == (12, "greedy")
    assert cli("evaluate", "loudest", "--quick").code == 0


def test_a_run_of_an_earlier_version_is_the_same_run(cli, program, tmp_path):
    command = words(program, "eap-ig", "--edges", 9, "--walk", "greedy")
    assert cli(*command).code == 0
    file = tmp_path / "eap-ig" / "config.json"
    settings = json.loads(file.read_text())
    # Until 0.1.0 the selection was among the options.
    settings["options"] |= settings.pop("selection")
    file.write_text(json.dumps(settings))
    before = (tmp_path / "eap-ig" / "circuit.json").read_bytes()
    again = cli(*command)
    assert again.code == 0 and "is finished: its results are read" in again.err
    assert (tmp_path / "eap-ig" / "circuit.json").read_bytes() == before
    assert cli("evaluate", "eap-ig", "--quick").code == 0
    (row,) = cli("runs", ".", "--json").json
    assert (row["state"], row["n_edges_asked"], row["threshold"]) == ("finished", 9, None)
