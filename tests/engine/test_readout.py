"""The readout: the metric's numbers, and no logit that the metric does not read."""

from dataclasses import replace

import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.metrics import METRICS, Metric
from tests.engine.problems import EXACT, engine_of, problem_of, random_mask

OF_LOGITS = [metric for metric in METRICS if metric.reads != "stream"]


def test_a_metric_that_reads_answers_unembeds_their_columns_at_the_steps_alone(unembedded):
    engine = IncrementalEngine(problem_of("gpt2", metric="logit-difference"))
    prompts = engine.problem.prompts
    calls = unembedded(engine)
    engine.loss(engine.start())
    answers = {*prompts.answers.flatten().tolist(), *prompts.wrong_answers.flatten().tolist()}
    # Nothing else is read, not even the full model's logits: this metric does not look at them.
    assert calls and all(shape == (2, 1, 32) for shape, _ in calls)
    assert all(columns == sorted(answers) for _, columns in calls)


def test_a_metric_that_reads_the_vocabulary_unembeds_all_of_it_at_the_steps_alone(unembedded):
    engine = IncrementalEngine(problem_of("gpt2", metric="loss"))
    calls = unembedded(engine)
    engine.loss(engine.start())
    assert calls and all(call == ((2, 1, 32), None) for call in calls)


def test_kl_holds_all_logits_of_the_full_model_only(unembedded):
    engine = IncrementalEngine(problem_of("gpt2", metric="kl"))
    calls = unembedded(engine)
    engine.loss(engine.start())
    engine.readout.loss(engine.recomputed(random_mask(engine.graph, seed=0)))
    assert calls == [((2, 1, 32), None)]


def test_kl_survives_logits_whose_exponentials_overflow(large_logits):
    problem = problem_of("gpt2", metric="kl")
    large_logits(problem.model)
    engine = IncrementalEngine(problem)
    final = engine.recomputed(random_mask(engine.graph, seed=0))
    steps, model = problem.prompts.at_steps, problem.model
    with torch.no_grad():
        logits, full = (steps(model.logits(x)) for x in (final, engine.clean_final))
    assert (logits - full).max() > 1000
    expected = problem.metric(logits, problem.prompts, full)
    torch.testing.assert_close(engine.readout.values(final), expected, rtol=1e-9, atol=1e-9)


def test_a_metric_that_reads_the_stream_unembeds_nothing(unembedded):
    engine = IncrementalEngine(problem_of("gpt2", metric="direction"))
    calls = unembedded(engine)
    engine.loss(engine.start())
    list(engine.cut_each(engine.start(), len(engine.graph.readers) - 1, [0, 1]).losses())
    assert calls == []


@pytest.mark.parametrize("metric", OF_LOGITS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_values_are_the_metric_of_the_whole_logits(family, metric):
    engine = engine_of(family, "resample", metric=metric.name)
    model, prompts = engine.problem.model, engine.problem.prompts
    final = engine.recomputed(random_mask(engine.graph, seed=0))
    with torch.no_grad():
        logits, full = (prompts.at_steps(model.logits(x)) for x in (final, engine.clean_final))
        found = engine.readout.values(final)
    torch.testing.assert_close(found, metric(logits, prompts, full), **EXACT)
    with torch.no_grad():
        other = engine_of(family, "resample", metric="l2").readout_of(metric)
        torch.testing.assert_close(other.values(final), found, **EXACT)
    assert engine.readout.loss(final) == pytest.approx(metric.sign * float(found.mean()), abs=1e-12)


def test_a_metric_of_the_users_own_is_given_one_candidate_at_a_time():
    def of_right(logits, prompts, full):
        assert logits.shape == full.logits.shape
        return logits.gather(-1, prompts.answers).mean((1, 2))

    problem = problem_of("gpt2", "resample", metric="loss")
    metric = Metric("own", "logits", "higher", of_right)
    engine = IncrementalEngine(replace(problem, metric=metric))
    reader = len(engine.graph.readers) - 1
    found = list(engine.cut_each(engine.start(), reader, [0, 1]).losses())
    alone = [engine.loss(engine.cut(engine.start(), [(writer, reader)])) for writer in (0, 1)]
    assert found == pytest.approx(alone, abs=1e-12)


# ------------------------------------------------------------------------------- helpers


@pytest.fixture
def unembedded(monkeypatch):
    """Writes down the shape of every stream that is unembedded from now on, and the columns."""

    def recording(engine):
        calls, model = [], engine.problem.model
        original = model.logits

        def record(stream, columns=None):
            calls.append((tuple(stream.shape), None if columns is None else columns.tolist()))
            return original(stream, columns)

        monkeypatch.setattr(model, "logits", record)
        return calls

    return recording


@pytest.fixture
def large_logits():
    """Makes a model's logits ten thousand times as large until the test is over."""
    changed = []

    def scale(model):
        weight = model.unembedding.weight
        changed.append((weight, weight.detach().clone()))
        with torch.no_grad():
            weight.mul_(1e4)

    yield scale
    for weight, before in changed:
        with torch.no_grad():
            weight.copy_(before)
