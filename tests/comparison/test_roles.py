"""Roles are those that heads were wired to play; attention is what the model itself reports."""

from dataclasses import replace

import pytest
import torch

from circuitfind.comparison.answers import written_answers
from circuitfind.comparison.effects import about_answers, answer_metric, effects
from circuitfind.comparison.looks import chunks, looks, patterns, recorded
from circuitfind.comparison.profiles import profiles
from circuitfind.comparison.roles import find_roles, labels
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MetricError
from circuitfind.methods.eap_ig import EapIg, EapIgOptions
from circuitfind.models.loading import load_model
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from tests.comparison.wired import copying_problem
from tests.engine.problems import model_of, problem_of, prompts_of
from tests.oracles.checkpoints import build


@pytest.fixture
def copying(tmp_path):
    return copying_problem(tmp_path)


def test_the_planted_previous_token_and_induction_heads_are_named():
    problem = make_problem(load_model("induction-pair"), "induction-pair", n_prompts=32)
    found = {role.component: (role.role, role.number) for role in find_roles(problem)}
    assert found["a0.h0"] == ("previous-token", pytest.approx(1))
    assert found["a1.h0"][0] == "induction"
    assert len(found) == 2
    assert labels(find_roles(problem)) == {"a0.h0": "previous-token", "a1.h0": "induction"}


def test_the_planted_movers_and_what_steers_them_are_named(copying):
    """The lead is 0.5 - (-0.5) = 1: one head adds 1 of it, the other takes off 0.5."""
    rows = [(r.component, r.role, r.number, r.where) for r in find_roles(copying)]
    assert rows == [
        ("a0.h0", "inhibition", pytest.approx(1), "of a1.h0"),
        ("a1.h0", "mover", pytest.approx(1), "reads right answers"),
        ("a1.h1", "negative mover", pytest.approx(-0.5), "reads right answers"),
    ]


def test_shares_are_of_the_lead(copying):
    found = effects(copying)
    assert found.metric == "logit-difference"
    assert found.lead == pytest.approx(1)
    written = written_answers(copying, found.lead)
    heads = [copying.graph.writer_index[name] for name in ("a1.h0", "a1.h1")]
    torch.testing.assert_close(written.direct[heads], torch.tensor([1.0, -0.5]).double())
    torch.testing.assert_close(written.copied[0, heads], torch.tensor([1.0, -0.5]).double())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_attention_is_what_the_model_itself_reports(family):
    problem = tiny_problem(family)
    network = build(family, n_layers=2)
    with torch.no_grad():
        expected = network(problem.prompts.clean, output_attentions=True).attentions
    for block, pattern in patterns(problem, recorded(problem)):
        torch.testing.assert_close(
            pattern.transpose(0, 1), expected[block.layer].double(), rtol=0, atol=1e-6
        )


def test_effects_of_edges_are_those_of_the_method_and_add_up_to_those_of_components():
    problem = tiny_problem()
    found = effects(problem)
    options = EapIgOptions(steps=3)
    *_, last = EapIg().scoring(IncrementalEngine(problem), options)
    mask = problem.graph.edge_mask
    torch.testing.assert_close(found.edges[mask], (last.state["scores"] / abs(found.lead))[mask])
    whole = found.by_place[found.places.index("(all)")]
    torch.testing.assert_close(whole, found.edges.masked_fill(~mask, 0).sum(1))


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_telling_places_apart_changes_no_profile_and_no_role(family):
    options = {"metric": "logit-difference", "seed": 3}
    whole = problem_of(family, **options)
    placed = problem_of(family, place_of=((0, 1, 1, 2, 3, 3), (1, 0, 2, 2, 2, 3)), **options)
    ours, theirs = profiles(whole), profiles(placed)
    by_place = theirs.effects.edges.unflatten(1, (-1, placed.graph.n_places))
    torch.testing.assert_close(by_place.sum(-1), ours.effects.edges)
    torch.testing.assert_close(theirs.parts, ours.parts)
    torch.testing.assert_close(theirs.depth, ours.depth)
    known, seen = find_roles(whole), find_roles(placed)
    assert [(r.component, r.role, r.where) for r in seen] == [
        (r.component, r.role, r.where) for r in known
    ]
    torch.testing.assert_close([r.number for r in seen], [r.number for r in known])


def test_chunks_change_nothing(monkeypatch):
    problem = tiny_problem()
    whole = looks(problem), effects(problem)
    monkeypatch.setattr("circuitfind.comparison.looks._FLOATS", 1)
    monkeypatch.setattr("circuitfind.engine.memory._BATCH_FLOATS", 1)
    assert len(chunks(problem)) == len(problem.prompts)
    parts = looks(problem), effects(problem)
    torch.testing.assert_close(parts[0].excess, whole[0].excess, equal_nan=True)
    torch.testing.assert_close(parts[1].edges, whole[1].edges)
    torch.testing.assert_close(parts[1].by_place, whole[1].by_place)


def test_attention_to_all_positions_alike_stands_at_nought(copying):
    """a0.h1 is not wired, so all its scores are equal."""
    found, writer = looks(copying), copying.graph.writer_index
    for target in ("previous", "itself", "start"):
        assert found.of("(all)", target)[writer["a0.h1"]] == pytest.approx(0, abs=1e-7)
    assert found.of("(all)", "itself")[writer["a0.h0"]] == pytest.approx(1)
    assert found.of("(all)", "itself")[writer["embed"]].isnan()
    assert found.of("(all)", "same token").isnan().all()


def test_a_position_that_bears_the_name_of_one_of_ours_is_kept_apart(copying):
    prompts = copying.prompts
    named = {"previous": prompts.lengths * 0 + 1, "start": prompts.lengths * 0 + 2}
    problem = replace(copying, prompts=replace(prompts, positions=named))
    found, head = looks(problem), problem.graph.writer_index["a1.h0"]
    assert found.of("(answer)", "at previous")[head] == pytest.approx(1)
    assert found.of("(answer)", "at start")[head] < 0
    roles = {role.component for role in find_roles(problem) if "mover" in role.role}
    assert roles == {"a1.h0", "a1.h1"}


def test_without_answers_effects_are_measured_by_the_problems_own_metric():
    problem = make_problem(load_model("induction-pair"), "induction-pair", n_prompts=8)
    assert answer_metric(problem.prompts) is None
    assert about_answers(problem).metric.name == "l2"
    assert effects(problem).lead > 0


def test_a_model_that_says_the_same_on_both_prompts_is_refused(copying):
    """Without x and y in the prompts, nothing changes what the model says."""
    pairs = [Pair([0, 1, 2, 1], [0, 1, 2, 3], [[1]], [[2]])]
    problem = make_problem(copying.model, collate(pairs), metric="logit-difference")
    with pytest.raises(MetricError, match="says the same on clean and corrupted prompts"):
        effects(problem)


def tiny_problem(family="llama"):
    return make_problem(model_of(family), prompts_of(seed=3), metric="logit-difference")
