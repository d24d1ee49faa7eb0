"""Certify the circuit of a run, or of a file, and write down what was proved.

`certificate.json` lies beside the circuit. It follows from the circuit, its question and the limits
alone, so it is computed again each time and written in one step.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from circuitfind.circuit import Circuit
from circuitfind.directories.directory import circuit_file, load_circuit_of
from circuitfind.evaluation.certificate import Certificate, certify
from circuitfind.evaluation.every_input import n_cases
from circuitfind.files import path_of
from circuitfind.problem import Problem
from circuitfind.question import Models, Question, fingerprints, problem_again
from circuitfind.records import as_json
from circuitfind.store import write

CERTIFICATE = "certificate.json"
FORMAT = "circuitfind certificate 1"


def certify_run(
    path: Path | str,
    *,
    cases: int = 100_000,
    tries: int = 20_000,
    tolerance: float = 1e-6,
    model: Any = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda message: None,
) -> tuple[Path, Certificate]:
    """Certify a circuit, in float64 where its model has finitely many inputs.

    Args:
        path: A run directory or a circuit file.
        cases: How many cases may be checked; where there are more, prompts are tried.
        tries: How many circuits may be tried for each level of minimality.
        tolerance: How far numerical outputs may differ.
        model: What `load_model` returned or takes; by default what the circuit's file names.
        device: Where to compute, unless a model is given.
        tell: Called with what a user should know.

    Returns:
        The file that was written, and the certificate.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    path = path_of(path)
    circuit = load_circuit_of(path)
    models = Models(model, tell=tell)
    problem = problem_again(circuit, path, models, device=device)
    exact = problem
    if n_cases(problem) is not None:
        exact = _in_float64(problem, circuit, path, models, device)
    found = certify(exact, circuit, cases=cases, tries=tries, tolerance=tolerance)
    file = certificate_file(path)
    content = {"format": FORMAT, **fingerprints(problem), **as_json(found)}
    write(file, json.dumps(content, indent=1) + "\n")
    return file, found


def certificate_file(path: Path) -> Path:
    """Return where the certificate of a circuit is kept."""
    file = circuit_file(path)
    return file.with_name(CERTIFICATE if path.is_dir() else f"{file.stem}.{CERTIFICATE}")


def _in_float64(
    problem: Problem, circuit: Circuit, path: Path, models: Models, device: str
) -> Problem:
    if problem.model.dtype == torch.float64:
        return problem
    question = replace(Question.of(circuit, path), device=device, dtype="float64")
    return question.problem(models.again(question), graph=circuit.graph)
