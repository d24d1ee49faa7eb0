"""Roles of a run's heads: measured on its model and prompts, kept beside its circuit.

`roles.json` names each head's roles with the numbers that earned them; drawings of the circuit
write them under the heads. A file about another model or other prompts is refused.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitfind import records
from circuitfind.circuit import Circuit
from circuitfind.comparison.roles import Role, find_roles
from circuitfind.directories.directory import circuit_file, load_circuit_of
from circuitfind.errors import ResultFileError, quoted
from circuitfind.files import read_bytes, write_whole
from circuitfind.problem import Problem
from circuitfind.question import Models, fingerprints, problem_again, what_changed
from circuitfind.records import parse_json
from circuitfind.store import reported

ROLES = "roles.json"
FORMAT = "circuitfind roles 1"


@dataclass(frozen=True)
class _Stored:
    """Content of the file."""

    model_fingerprint: str
    prompts_fingerprint: str
    roles: tuple[Role, ...]


def roles_of(
    path: Path,
    *,
    model: Any = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda message: None,
) -> tuple[Circuit, tuple[Role, ...]]:
    """Return a circuit and the roles of its model's heads, measured or read.

    Args:
        path: A run directory or a circuit file.
        model: What `load_model` returned or takes; by default what the circuit's file names.
        device: Where to compute, unless a model is given.
        tell: Called with what a user should know.

    Raises:
        CircuitfindError: The circuit's file does not say of which model and task it is, or they
            cannot be had.
    """
    circuit = load_circuit_of(path)
    file = roles_file(path)
    if (found := read_roles(file, circuit)) is not None:
        tell(f"{file} is there: it is read, not measured again")
        return circuit, found
    problem = problem_again(circuit, path, Models(model, tell=tell), device=device)
    return circuit, measured_roles(problem, file, tell)


def measured_roles(
    problem: Problem, file: Path | None, tell: Callable[[str], None]
) -> tuple[Role, ...]:
    """Measure the roles of a model's heads, say before what that costs, and keep them in a file.

    Raises:
        MetricError: The metric is the same on clean and corrupted prompts.
    """
    tell(f"roles of heads: about 12 passes of {problem.prompts.n_prompts} prompts")
    found = find_roles(problem)
    if file is not None:
        content = {
            "format": FORMAT,
            **fingerprints(problem),
            "roles": [records.as_json(role) for role in found],
        }
        with reported(file.parent):
            write_whole(file, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return found


def roles_file(path: Path) -> Path:
    """Return where the roles of a circuit's heads are kept."""
    file = circuit_file(path)
    return file.with_name(ROLES) if path.is_dir() else file.with_name(f"{file.stem}.{ROLES}")


def read_roles(file: Path, circuit: Circuit) -> tuple[Role, ...] | None:
    """Return the roles that a file names; None if there is none.

    Raises:
        ResultFileError: It is damaged, or of another model or other prompts.
    """
    if not file.is_file():
        return None
    try:
        content = records.body_of(parse_json(read_bytes(file)), FORMAT, file)
        stored: _Stored = records.from_json(_Stored, content)
        now = {name: getattr(stored, name) for name in ("model_fingerprint", "prompts_fingerprint")}
        if changed := what_changed(circuit.origin, now, "its circuit"):
            raise ValueError(changed)
        _require_heads(circuit, stored.roles)
    except (ValueError, KeyError, TypeError) as error:
        raise ResultFileError(
            f"{file} does not fit its circuit, or was damaged: {error}; delete it to measure again"
        ) from None
    return stored.roles


def _require_heads(circuit: Circuit, found: Sequence[Role]) -> None:
    for role in found:
        if role.component not in circuit.graph.writer_index:
            raise ValueError(f"there is no component {quoted(role.component)}")
