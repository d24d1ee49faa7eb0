"""Passes are found again where everything that decides them is the same, and nowhere else."""

import pytest
import torch

from circuitfind.engine.masked_pass import MaskedPasses
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.passes import PassLog
from tests.engine.problems import problem_of, random_mask
from tests.evaluation.test_measured import in_chunks

LENGTHS = (6, 6, 6)


@pytest.fixture
def made(monkeypatch):
    """Count the passes that are really made."""
    final, found = MaskedPasses.final, []
    monkeypatch.setattr(MaskedPasses, "final", lambda *a: found.append(1) or final(*a))
    return found


def measured(file, problem, masks, at_once=None):
    log = PassLog(file)
    try:
        engine = in_chunks(problem, at_once or len(problem.prompts))
        return Measured(engine, log=log).values(masks)
    finally:
        log.close()


def masks_of(problem, n):
    return [random_mask(problem.graph, seed) for seed in range(n)]


@pytest.mark.parametrize("at_once", [3, 2])
def test_passes_are_made_once_and_read_back_exactly(at_once, made, tmp_path):
    problem = problem_of("gpt2", lengths=LENGTHS)
    file, masks = tmp_path / "passes.jsonl", masks_of(problem, 4)
    first = measured(file, problem, masks[:3], at_once)
    n_parts = -(-3 // at_once)
    assert len(made) == 3 * n_parts
    again = measured(file, problem, masks, at_once)
    assert len(made) == 4 * n_parts
    assert torch.equal(again["kl"][:3], first["kl"])


def test_what_decides_a_pass_tells_passes_apart(made, tmp_path):
    file, n = tmp_path / "passes.jsonl", 0
    for problem, at_once in (
        (problem_of("gpt2", lengths=LENGTHS), 3),
        (problem_of("gpt2", lengths=LENGTHS), 1),
        (problem_of("gpt2", "zero", lengths=LENGTHS), 3),
        (problem_of("gpt2", metric="logit-difference", lengths=LENGTHS), 3),
        (problem_of("gpt2", lengths=(6, 6)), 2),
    ):
        measured(file, problem, masks_of(problem, 1), at_once)
        n += -(-len(problem.prompts) // at_once)
        assert len(made) == n


@pytest.mark.parametrize("damage", ["cut short", "nonsense", "other values"])
def test_a_damaged_line_is_a_pass_that_was_not_made(damage, made, tmp_path):
    problem = problem_of("gpt2", lengths=LENGTHS)
    file, masks = tmp_path / "passes.jsonl", masks_of(problem, 3)
    whole = measured(file, problem, masks)["kl"]
    lines = file.read_bytes().splitlines(keepends=True)
    lines[-1] = {
        "cut short": lines[-1][:-9],
        "nonsense": b"\xff\n",
        "other values": lines[-1].replace(b"[[", b"[[0.5, "),
    }[damage]
    file.write_bytes(b"".join(lines))
    assert torch.equal(measured(file, problem, masks)["kl"], whole)
    assert len(made) == 4
    assert torch.equal(measured(file, problem, masks)["kl"], whole)
    assert len(made) == 4
