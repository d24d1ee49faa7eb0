"""Prompts shared out among processes: to the last bit what one process finds in the same shares."""

import os
import signal
import time

import psutil
import pytest

import circuitfind as cf
from circuitfind.engine.chunk import ChunkEngine
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.memory import chunk_bytes, plan
from circuitfind.errors import LimitError, MetricError, ModelError, WorkerError
from circuitfind.measures import l2
from circuitfind.methods import METHODS
from circuitfind.methods.search import search
from circuitfind.methods.settings import settled
from circuitfind.metrics import Metric
from circuitfind.models.loading import load_model
from circuitfind.workers.crew import Workers
from tests.engine.problems import problem_of
from tests.programs import write_program

TWO_SHARES = Workers(1, shares=2)


OTHERS: set[int] = set()
"""Processes that other tests have left running: a fork server, a browser's driver."""


@pytest.fixture(autouse=True)
def there_at_once(monkeypatch):
    """Workers are copies of this process, which has loaded the libraries."""
    monkeypatch.setattr("circuitfind.workers.processes.usual_start_method", lambda: "fork")
    OTHERS.clear()
    OTHERS.update(each.pid for each in psutil.Process().children())


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A model that a worker loads in milliseconds."""
    return load_model(write_program(tmp_path_factory.mktemp("program"), n_outputs=5))


def problem_with(model, n_prompts, **more):
    return cf.make_problem(model, "program", n_prompts=n_prompts, **more)


def found_by(
    problem, workers, method="acdc", memory=None, on_progress=lambda step: None, **options
):
    engine = IncrementalEngine(problem, memory, workers)
    given = settled(METHODS.find(method), {"threshold": 0.05, **options}, {})
    found = search(engine, METHODS.find(method), *given, on_progress=on_progress)
    assert own_workers() == []
    return found


def own_workers():
    found = [each for each in psutil.Process().children() if each.pid not in OTHERS]
    return [each for each in found if each.status() != "zombie"]


def kill_a_worker():
    worker, *_ = own_workers()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10)


@pytest.mark.parametrize(
    ("method", "metric", "ablation"),
    [("acdc", "kl", "resample"), ("exact", "direction", "zero"), ("acdc", "l2", "mean")],
)
def test_two_workers_find_what_one_finds_even_if_a_worker_is_killed(
    program, method, metric, ablation
):
    problem = problem_with(program, 5, metric=metric, ablation=ablation)
    require_alike(problem, method)


@pytest.mark.slow
def test_two_workers_find_what_one_finds_in_a_trained_model():
    problem = cf.make_problem(load_model("ioi-small"), "ioi", n_prompts=3)
    require_alike(problem, "acdc")


def test_two_workers_find_the_same_at_places(program):
    problem = problem_with(program, 5, metric="kl", places="each")
    one, two = (found_by(problem, workers) for workers in (TWO_SHARES, Workers(2)))
    assert problem.graph.n_places == 5 and two.decisions == one.decisions
    together = found_by(problem, Workers())
    assert [each.kept for each in together.decisions] == [each.kept for each in one.decisions]


def require_alike(problem, method):
    """Hold what two workers find, one of which is killed twice, to what one finds."""
    one = found_by(problem, TWO_SHARES, method)
    killed = []

    def kill(progress):
        # One that was killed is replaced when it is asked for something.
        if len(killed) < 2 and own_workers():
            kill_a_worker()
            killed.append(progress)

    two = found_by(problem, Workers(2), method, on_progress=kill)
    assert len(killed) == 2 and len(two.engine.chunks) == 2
    assert two.decisions == one.decisions
    assert two.drift == one.drift
    together = found_by(problem, Workers(), method)
    assert [each.kept for each in together.decisions] == [each.kept for each in one.decisions]
    for each, other in zip(together.decisions, one.decisions, strict=True):
        assert each.effect == pytest.approx(other.effect, abs=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning:ray", "ignore::ResourceWarning")
@pytest.mark.slow
def test_workers_on_a_ray_cluster_find_the_same_even_if_one_is_killed(program):
    pytest.importorskip("ray")
    from tests.sweeps.test_ray import kill_a_worker as kill_on_ray

    problem, killed = problem_with(program, 4), []

    def kill(progress):
        if not killed:
            killed.append(kill_on_ray())

    found = found_by(problem, Workers(2, ray="local"), on_progress=kill)
    assert killed
    assert found.decisions == found_by(problem, TWO_SHARES).decisions


def test_a_worker_that_is_killed_while_it_evaluates_candidates_is_replaced(program):
    problem, found = problem_with(program, 4), []
    for workers in (TWO_SHARES, Workers(2)):
        engine = IncrementalEngine(problem, None, workers)
        kill = kill_a_worker if workers.n > 1 else list
        with engine.staffed():
            state, reader = engine.start(), len(engine.graph.readers) - 1
            losses = [engine.loss(state)]
            state = engine.cut(engine.cut(state, [(3, reader)]), [(5, reader)])
            kill()
            tried = engine.cut_nested(state, reader, [0, 1, 2])
            losses += tried.losses()
            kill()
            kept = state.kept.copy()
            kept[:2, reader] = False
            picked = tried.pick(1, kept)
            assert picked.kept.tolist() == kept.tolist()
            found.append((losses, engine.loss(picked), picked.final.tolist(), engine.loss(state)))
    assert found[0] == found[1]
    assert own_workers() == []


def test_with_little_memory_each_worker_takes_its_share_in_chunks(program):
    problem = problem_with(program, 6)
    length = problem.prompts.clean.shape[1]
    memory = 2 * int(chunk_bytes(problem.graph, 2, length, 8) * 8 / 7) + 16
    planned = plan(problem, memory, 2)
    assert (planned.n_prompts, planned.n_in_share, planned.in_files) == (2, 2, True)
    one = found_by(problem, TWO_SHARES, memory=memory)
    assert found_by(problem, Workers(2), memory=memory).decisions == one.decisions


def test_no_more_workers_are_started_than_there_are_prompts(program):
    problem, most = problem_with(program, 2), []
    found = found_by(problem, Workers(5), on_progress=lambda step: most.append(len(own_workers())))
    assert max(most) == 1
    assert found.decisions == found_by(problem, TWO_SHARES).decisions


def test_methods_that_cut_nothing_step_by_step_start_no_workers(program):
    problem, seen = problem_with(program, 4, metric="l2"), []
    found_by(problem, Workers(2), "eap-ig", on_progress=lambda step: seen.append(own_workers()))
    assert seen and not any(seen)


def test_an_interrupted_search_ends_its_workers(program):
    problem = problem_with(program, 4)

    def interrupt(progress):
        assert len(own_workers()) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cf.discover(problem, threshold=0.05, workers=2, on_progress=interrupt)
    assert own_workers() == []


def test_what_a_search_found_can_be_asked_further_once_its_workers_are_gone(program):
    problem = problem_with(program, 4)
    found = cf.discover(problem, threshold=0.05, workers=2)
    state = found.engine.start_from(found.circuit.kept)
    assert found.engine.drift(state) < 1e-5
    assert own_workers() == []


HERE = os.getpid()


def refusing_elsewhere(logits, prompts, full):
    if os.getpid() != HERE:
        raise MetricError("not here")
    return l2(logits, prompts, full)


def test_an_error_in_a_worker_is_raised_where_the_search_is(program):
    metric = Metric("refusing", "squared", "lower", refusing_elsewhere)
    problem = problem_with(program, 4, metric=metric)
    with pytest.raises(MetricError, match="^not here$"):
        cf.discover(problem, threshold=0.05, workers=2)
    assert own_workers() == []


def test_workers_that_die_again_and_again_are_given_up(program, monkeypatch):
    def die(*_):
        time.sleep(0.01)
        os._exit(3 if os.getpid() != HERE else 0)

    monkeypatch.setattr(ChunkEngine, "together", property(die))
    problem = problem_with(program, 4)
    with pytest.raises(WorkerError, match=r"3 workers in a row .* exit code 3; give fewer"):
        cf.discover(problem, threshold=0.05, workers=2)
    assert own_workers() == []


def test_what_cannot_be_sent_to_workers_is_said(program):
    metric = cf.custom_metric(lambda logits: logits.sum((1, 2)), name="mine")
    problem = problem_with(program, 4, metric=metric)
    with pytest.raises(WorkerError, match=r"the question cannot be sent to workers \(.*lambda"):
        cf.discover(problem, threshold=0.05, workers=2)
    with pytest.raises(ModelError, match=r"was given in Python .* save it with its tokenizer"):
        cf.discover(problem_of("gpt2"), threshold=0.05, workers=2)
    with pytest.raises(LimitError, match="workers must be a whole number from 1 to 1,024, not 0"):
        cf.discover(problem, threshold=0.05, workers=0)
