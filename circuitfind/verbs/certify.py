"""Certify the circuit of a run, or of a file, and write down what was proved.

`certificate.json` lies beside the circuit. It follows from the circuit, its question and the
settings alone, so it is computed again each time and written in one step.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from circuitfind.directories.directory import circuit_file, digest_of, load_circuit_of
from circuitfind.evaluation.certificate import Certificate
from circuitfind.evaluation.certify import certify
from circuitfind.evaluation.every_input import kind_of_cases, n_cases
from circuitfind.files import path_of
from circuitfind.limits import require
from circuitfind.progress import Checkpoint
from circuitfind.question import (
    Models,
    Question,
    fingerprints,
    held_out_again,
    problem_again,
)
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
    memory: int | str | None = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> tuple[Path, Certificate]:
    """Certify a circuit on all inputs of its model, or on held-out prompts.

    Where the model has finitely many inputs it is computed in float64, unless it is given: then it
    is computed as it is.

    Args:
        path: A run directory or a circuit file.
        cases: How many cases may be checked; where there are more, as many are drawn at random.
        tries: How many circuits may be tried for each level of minimality.
        tolerance: How far numerical outputs may differ.
        model: What `load_model` returned or takes; by default what the circuit's file names.
        device: Where to compute, unless a model is given.
        memory: How many bytes may be taken beside the model, also as text like `2GB`; by default
            what it takes.
        tell: Called with what a user should know.
        on_progress: Called as cases are checked and circuits tried.

    Returns:
        The file that was written, and the certificate.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    settings: dict[str, Any] = {"cases": cases, "tries": tries, "tolerance": tolerance}
    require(**settings)
    path = path_of(path)
    circuit = load_circuit_of(path)
    models, question = Models(model, tell=tell), Question.of(circuit, path)
    problem = problem_again(circuit, path, models, device=device)
    facts = fingerprints(problem)
    if n_cases(problem) is not None:
        exact = replace(question, device=device, dtype="float64")
        problem = exact.problem(models.again(exact), graph=circuit.graph)
    asked = problem
    if is_tried := kind_of_cases(problem, cases) == "given":
        asked = held_out_again(circuit, path, problem, tell) or problem
    found = certify(asked, circuit, **settings, memory=memory, on_progress=on_progress)
    if is_tried:
        found = replace(found, prompts="discovery" if asked is problem else "held-out")
    file = certificate_file(path)
    about = {"format": FORMAT, **facts, "circuit": digest_of(circuit), "settings": settings}
    write(file, json.dumps({**about, **as_json(found)}, indent=1) + "\n")
    return file, found


def certificate_file(path: Path) -> Path:
    """Return where the certificate of a circuit is kept."""
    file = circuit_file(path)
    return file.with_name(CERTIFICATE if path.is_dir() else f"{file.stem}.{CERTIFICATE}")
