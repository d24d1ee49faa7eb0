"""A benchmark measures what it says, goes on where it was stopped, and shows what was refused."""

import csv
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from scipy.stats import t

from circuitfind.api import discover
from circuitfind.directories.mib import MibConfig
from circuitfind.directories.ranking import RankingConfig, RankingResult
from circuitfind.directories.work import foreword_of
from circuitfind.errors import ModelError, SweepError
from circuitfind.evaluation.cost import Cost, PeakBytes, plain_pass, with_cost
from circuitfind.evaluation.roc import step_area
from circuitfind.formats.eap_ig import edge_names
from circuitfind.methods import METHODS
from circuitfind.models.forward import Run
from circuitfind.models.loading import load_model
from circuitfind.question import Models, make_problem
from circuitfind.sweeps.leaderboard import leaderboard
from circuitfind.sweeps.rankings import ranking_row, read_rankings, with_finished, write_leaderboard
from circuitfind.sweeps.running import RUNS, run_sweep
from circuitfind.sweeps.suite import FOLDER, read_suite, suite_file
from circuitfind.sweeps.work import Worker
from circuitfind.verbs.mib import measure_mib
from circuitfind.verbs.ranking import measure_ranking, ranked_edges
from tests.oracles.mib import area_under_roc

SMALL = """
measure = "auroc"
seeds = [0, 1]
prompts = 4
dtype = "float64"
thresholds = [1e-6, 0.01, 0.3]

[[cases]]
models = ["hist", "and-gate"]

[methods.exact]
[methods.acdc]
[methods.eap]
"""


class Here:
    """A launcher that does jobs in this process, one at a time."""

    def __init__(self):
        self._worker, self._ended = Worker(), []

    def has_room(self):
        return not self._ended

    def start(self, job):
        self._ended.append((job, self._worker.run(job)))

    def ended(self, seconds):
        done, self._ended = self._ended, []
        return done

    def close(self):
        pass


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The rankings of a small suite, and where they are."""
    path = tmp_path_factory.mktemp("suite")
    runs = suite(path, SMALL)
    assert not run_sweep(runs, path / "whole", Here).failed
    return runs, path


def suite(path: Path, text: str):
    (path / "small.toml").write_text(text)
    return read_suite(path / "small.toml")


def written(runs, path):
    """What a benchmark writes, without what tells how long something took."""
    results = read_rankings(runs, path)
    write_leaderboard(leaderboard(runs, results), runs, results, path)
    kept = ("case", "method", "seed", "auroc", "steps", "n_true", "best", "refused")
    with (path / "rankings.csv").open() as file:
        rows = [tuple(row[name] for name in kept) for row in csv.DictReader(file)]
    with (path / "leaderboard.csv").open() as file:
        methods = [{**row, "time": "", "memory": ""} for row in csv.DictReader(file)]
    return rows, methods


def test_a_benchmark_that_was_stopped_ends_like_one_that_was_not(small, tmp_path):
    runs, path = small
    run_sweep(runs[:5], tmp_path, Here)
    first = (tmp_path / RUNS / runs[0].name / "ranking.json").read_bytes()
    assert run_sweep(runs, tmp_path, Here).finished == len(runs) == 12
    assert (tmp_path / RUNS / runs[0].name / "ranking.json").read_bytes() == first
    assert written(runs, tmp_path) == written(runs, path / "whole")
    others = [replace(run, config=replace(run.config, n_prompts=5)) for run in runs]
    assert not read_rankings(others, tmp_path)


@pytest.mark.parametrize("case", ["hist", "and-gate"])
def test_the_areas_are_those_of_their_definitions(small, case):
    """By circuits grown and counted name by name, from effects of a search of its own."""
    runs, path = small
    model = load_model(case, dtype="float64")
    problem = make_problem(model, case, n_prompts=4)
    found = discover(problem, "exact", threshold=0.0)
    effects = {each.edge: abs(each.effect or 0.0) for each in found.decisions}
    true = set(model.sizes["truth"]["resample"])
    circuits = [
        {edge for edge, effect in effects.items() if effect >= size}
        for size in {effect for effect in effects.values() if effect > 0}
    ]
    points = [
        (len(kept - true) / (len(effects) - len(true)), len(kept & true) / len(true))
        for kept in circuits
    ]
    # Twice the shared edges over all edges of both is the harmonic mean of precision and recall.
    best = max(circuits, key=lambda kept: 2 * len(kept & true) / (len(kept) + len(true)))
    result = result_of(runs, path, f"{case}-resample-exact-seed-0")
    assert (result.n_true, result.n_edges) == (len(true), len(effects))
    assert result.figures["steps"] == pytest.approx(step_area(points))
    assert result.figures["precision"] == pytest.approx(len(best & true) / len(best))
    assert result.figures["recall"] == pytest.approx(len(best & true) / len(true))
    names = {edge.name: edge_names(edge, problem.graph)[0] for edge in problem.graph.edges()}
    for value, scores in (
        (result.figures["auroc"], effects),
        (result.best, {edge: float(edge in true) for edge in effects}),
    ):
        by_name = {names[edge]: score for edge, score in scores.items()}
        expected = area_under_roc(list(names.values()), by_name, {names[edge] for edge in true})
        assert value == pytest.approx(expected)


def result_of(runs, path, name):
    assert name in {run.name for run in runs}
    return read_rankings(runs, path / "whole")[name]


def test_edges_of_acdc_rank_by_the_highest_threshold_that_keeps_them(program):
    thresholds = (0.1, 0.001, 0.01)
    config = RankingConfig("program", str(program), "acdc", n_prompts=4, thresholds=thresholds)
    config = config.pinned()
    problem = config.problem(Models().of(config))
    ranked = ranked_edges(problem, config)
    kept = [discover(problem, "acdc", threshold=each).circuit for each in sorted(thresholds)]
    assert [each.kept.tolist() for each in ranked.circuits] == [x.kept.tolist() for x in kept]
    assert 0 < kept[-1].n_edges < kept[0].n_edges
    for edge in problem.graph.edges():
        place = problem.graph.index(edge)
        levels = [number for number, each in enumerate(kept, 1) if each.kept[place]]
        assert ranked.scores.score(edge) == max(levels, default=0)


def test_what_a_method_refuses_is_a_dash_with_its_reason(small):
    runs, path = small
    board = leaderboard(runs, read_rankings(runs, path / "whole"))
    row = next(row for row in board.shown() if row["method"] == "eap")
    assert row["AUROC"] == row["by steps"] == row["time"] == "–"
    assert row["cases"] == "0 of 2 [1]"
    (note,) = board.notes()
    assert note.startswith("eap ranks no edges in 2 of 2 cases: the gradient of 'l2' is zero")
    assert f"1. {note}" in board.markdown()
    others = [row for row in board.shown() if row["method"] != "eap"]
    assert all(float(row["time"].replace(",", "")) > 0 for row in others)
    assert board.shown()[-1] == row


def test_rules_that_a_model_cannot_follow_are_refused_and_nothing_else_is(tmp_path, monkeypatch):
    config = RankingConfig("and-gate", "and-gate", "eap-ig", {"rules": "gate"}, n_prompts=4)
    models = Models()
    models.of(config).neurons = lambda layer: None
    found = measure_ranking(tmp_path / "refused", config, models=models)
    assert found.refused.startswith("it is not known how the MLP of layer 0 of 'and-gate' is built")

    def fail(problem):
        raise ModelError("no pass")

    monkeypatch.setattr("circuitfind.evaluation.cost.plain_pass", fail)
    with pytest.raises(ModelError, match="no pass"):
        measure_ranking(tmp_path / "failed", config, models=models)


def test_what_is_not_finished_is_a_dash_too_or_left_out(small):
    runs, path = small
    found = read_rankings(runs, path / "whole")
    of_hist = {run.name: found[run.name] for run in runs if run.case.startswith("hist")}
    board = leaderboard(runs, of_hist)
    first, second = board.by_case()
    assert (first["true edges"], second["true edges"], second["true first"]) == ("4 of 8", "–", "–")
    (columns,) = {line.count("|") for line in board.markdown().splitlines()[-4:]}
    assert columns == len(first) + 1
    of_exact = {name: found[name] for name in found if "exact" in name}
    wanted = [run for run in runs if run.label == "acdc"]
    written = with_finished(wanted, runs, of_exact)
    assert written == [run for run in runs if run.label in ("acdc", "exact")]


def test_areas_are_those_of_the_measurement_by_mibs_protocol(tmp_path, monkeypatch):
    runs = suite(
        tmp_path,
        'measure = "areas"\nprompts = 4\n[[cases]]\nmodels = ["ioi-small"]\ntasks = ["ioi"]\n'
        "[methods.eap]\n[methods.random]",
    )
    found = measure_ranking(tmp_path / "ranking", runs[0].config)
    expected = measure_mib(
        tmp_path / "mib", MibConfig("ioi", "ioi-small", "eap", n_prompts=4)
    ).result
    assert found.figures == {
        "cpr": pytest.approx(expected.cpr),
        "cmd": pytest.approx(expected.cmd),
        "acc_auc": pytest.approx(expected.signed.acc_auc),
    }
    assert foreword_of(tmp_path / "ranking")[0].startswith("the model itself: logit-difference")
    assert found.cost.bytes > found.cost.bytes_plain > 0
    # CPR is undefined where cutting all edges changes nothing.
    results = {runs[0].name: replace(found, figures={**found.figures, "cpr": None})}
    board = leaderboard(runs[:1], results)
    names = [file.stem for file in write_leaderboard(board, runs[:1], results, tmp_path)]
    assert (board.shown()[0]["CPR"], "cpr" in names, "acc_auc" in names) == ("–", False, True)
    board = leaderboard(runs, {**results, runs[1].name: found})
    assert [each.method for each in board.standings] == ["random", "eap"]
    # Where there are no other prompts, the same ones serve, and a note says so.
    monkeypatch.setattr(RankingConfig, "held_out", lambda config, model: None)
    seen = measure_ranking(tmp_path / "seen", runs[1].config)
    assert (found.held_out, seen.held_out) == (True, False)
    assert not board.notes()
    (note,) = leaderboard(runs[1:], {runs[1].name: seen}).notes()
    assert note.startswith("1 of 1 cases are measured on the prompts that edges are ranked on")
    assert note.endswith(": ioi-small, ioi")
    assert ranking_row(runs[1], seen)["held_out"] is False


def test_means_and_intervals_are_over_cases_after_seeds(small):
    run = next(run for run in small[0] if run.label == "exact")
    values = {f"case {n}": (0.5 + n / 20, 0.6 + n / 20) for n in range(8)}
    runs, results = [], {}
    for case, seeds in values.items():
        for seed, value in enumerate(seeds):
            name = f"{case} {seed}"
            runs.append(replace(run, name=name, case=case))
            cost = Cost(seed + 1.0, 0.5, 30, 10)
            results[name] = RankingResult({"auroc": value, "steps": 1.0}, 9, 2, 1.0, None, cost)
    (standing,) = leaderboard(runs, results).standings
    means = [fmean(seeds) for seeds in values.values()]
    low, high = t.interval(0.95, 7, fmean(means), stdev(means) / 8**0.5)
    figure = standing.figures["auroc"]
    assert (figure.mean, figure.low, figure.high) == pytest.approx((fmean(means), low, high))
    assert (standing.n_cases, standing.time, standing.memory) == (8, 3.0, 3.0)
    (few,) = leaderboard(runs[:14], results).standings
    assert few.figures["auroc"].low is None


def test_the_plain_pass_goes_to_the_logits_and_back(program):
    """Its slope is that of the model itself, along a direction of the embedding."""
    model = load_model(program)
    problem = make_problem(model, "program", n_prompts=3)
    slope, step = plain_pass(problem), 1e-5
    towards = torch.randn(slope.shape[-1], generator=torch.Generator().manual_seed(0)).double()
    embed, moved = model.embed, []
    for sign in (1, -1):
        model.embed = lambda tokens, sign=sign: embed(tokens)._replace(
            token=embed(tokens).token + sign * step * towards
        )
        with torch.no_grad():
            moved.append(total_of(problem))
    del model.embed
    expected = (moved[0] - moved[1]) / (2 * step)
    assert float((slope @ towards).sum()) == pytest.approx(expected, rel=1e-4)


def total_of(problem):
    stream = problem.model.embed(problem.prompts.clean).joint
    final = Run(problem.model, problem.prompts.real).run(stream)
    return float(problem.model.logits(problem.prompts.at_steps(final)).sum())


def test_the_peak_is_that_of_tensors_alive_at_once(program):
    def two_and_one():
        first, second = torch.zeros(1000), torch.zeros(500)
        del first, second
        return torch.zeros(1200)

    with PeakBytes() as counted:
        two_and_one()
    assert counted.peak == 6000
    problem = make_problem(load_model(program), "program", n_prompts=3)
    result, cost = with_cost(problem, lambda: 7, two_and_one)
    assert (result, cost.bytes) == (7, 6000)
    assert cost.bytes_plain > 0


CASES = '[[cases]]\nmodels = ["hist"]\n'
WRONG = {
    "no cases": ('measure = "auroc"', r"it has no cases; give tables \[\[cases\]\]"),
    "measure": (f'measure = "area"\n{CASES}', "measure is 'area'; choose one of auroc, areas"),
    "no measure": (CASES, "it has no measure; give measure = 'auroc' or 'areas'"),
    "method": (f'measure = "auroc"\n{CASES}[methods.acd]', "no method named 'acd'; the methods"),
    "option": (
        f'measure = "auroc"\n{CASES}[methods.exact]\nstepz = 3',
        "'exact' has no option 'stepz'",
    ),
    "task": (
        f'measure = "areas"\n{CASES}tasks = ["iio"]\n[methods.exact]',
        "no task named 'iio'; the tasks are",
    ),
    "no task": (
        'measure = "areas"\n[[cases]]\nmodels = ["gpt-4l"]\n[methods.exact]',
        r"the model 'gpt-4l' and no tasks; give tasks = \[...\]",
    ),
    "entry": (f'measure = "auroc"\n{CASES}task = ["ioi"]', "table 1 has an entry 'task'; its"),
    "thresholds": (
        f'measure = "auroc"\n{CASES}[methods.acdc]',
        r"'acdc' decides edge by edge; give thresholds = \[...\]",
    ),
    "threshold": (
        f'measure = "auroc"\nthresholds = [0.1]\n{CASES}[methods.acdc]\nthreshold = 1',
        r"'acdc' decides edge by edge; give thresholds = \[...\] in place of threshold",
    ),
    "thresholds of scores": (
        f'measure = "auroc"\n{CASES}[methods.exact]\nthresholds = [0.1]',
        "'exact' scores edges, which are ranked by their scores; leave out thresholds",
    ),
    "selection": (
        f'measure = "auroc"\n{CASES}[methods.eap-ig]\nn_edges = 3',
        "n_edges chooses a circuit, and here a ranking of all edges is measured",
    ),
    "ablation of areas": (
        'measure = "areas"\n[[cases]]\nmodels = ["ioi-small"]\ntasks = ["ioi"]\n'
        'ablations = ["zero"]\n[methods.eap]',
        "ablation is 'zero', and MIB's protocol has 'resample'; leave it out",
    ),
    "metric of areas": (
        f'measure = "areas"\nmetric = "kl"\n{CASES}[methods.exact]',
        "metric is 'kl', and MIB's protocol has 'logit-difference'; leave it out",
    ),
    "truth of areas": (
        f'measure = "areas"\n{CASES}against = "known.json"\n[methods.exact]',
        "against is 'known.json', and 'areas' are measured against no known circuit; leave it",
    ),
    "absent model": (
        'measure = "areas"\n[[cases]]\nmodels = ["smollm2"]\ntasks = ["ioi"]\n[methods.eap]',
        "'smollm2' is not on this machine yet; download it once",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_suite_is_said_before_anything_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text, message = WRONG[name]
    with pytest.raises(SweepError, match=message):
        suite(tmp_path, text)


def test_known_circuits_are_those_of_places_and_of_neurons(tmp_path):
    truth = FOLDER / "truth"
    runs = suite(tmp_path, f"""
        measure = "auroc"
        prompts = 8
        dtype = "float64"
        cases = [
            {{models = ["{truth}/two-back.json"], places = "each"}},
            {{models = ["{truth}/exactly-one.json"], neurons = "all"}},
        ]
        methods.exact = {{}}
    """)  # fmt: skip
    assert [run.case for run in runs] == [
        "two-back, resample, places each", "exactly-one, resample, neurons all"
    ]  # fmt: skip
    assert not run_sweep(runs, tmp_path, Here).failed
    found = read_rankings(runs, tmp_path)
    sizes = [(found[run.name].n_true, found[run.name].n_edges) for run in runs]
    # Three symbols of five go two positions on; 52 edges at 6 places. Three of ten neurons.
    assert sizes == [(9, 312), (9, 21)]
    for run in runs:
        figures = found[run.name].figures
        assert figures["steps"] == figures["precision"] == figures["recall"] == 1


def test_suites_that_ship_ask_every_method_that_they_should(monkeypatch):
    with pytest.raises(SweepError, match="no suite 'trutth'; give one of smollm2, truth, zoo, or"):
        suite_file("trutth")
    for name in ("truth", "zoo"):
        runs = read_suite(suite_file(name))
        assert {run.label for run in runs} == {method.name for method in METHODS}
        assert len({run.case for run in runs}) >= 8
    monkeypatch.setattr("circuitfind.sweeps.planning.require_pretrained", lambda model: None)
    runs = read_suite(suite_file("smollm2"))
    assert len(runs) == len({(run.label, run.case) for run in runs}) == 10
    runs = read_suite(FOLDER / "truth.toml", ["exact"])
    assert len({run.config.model for run in runs}) == 36
    assert len({run.case for run in runs}) == 40
    with pytest.raises(SweepError, match="has no method 'exat'; its methods are hybrid, acdc|acdc"):
        read_suite(FOLDER / "truth.toml", ["exat"])
