"""What makes the neurons or latents of a run's circuit active, on its own prompts or on a text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from circuitfind.directories.directory import load_circuit_of
from circuitfind.evaluation.unit_uses import SHOWN, UnitUses, require_units_in, unit_uses
from circuitfind.question import Models, problem_again
from circuitfind.tasks.reading import text_of


def units_of(
    path: Path,
    *,
    text: Path | None = None,
    n_shown: int = SHOWN,
    model: Any = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda message: None,
) -> UnitUses:
    """Return what makes the units of a circuit active, the largest effects first.

    Args:
        path: A run directory or a circuit file.
        text: A text file that the model reads in place of the run's clean prompts.
        n_shown: Largest number of tokens, and of contexts, of each unit.
        model: What `load_model` returned or takes; by default what the circuit's file names.
        device: Where to compute, unless a model is given.
        tell: Called with what the model reads.

    Raises:
        CircuitfindError: The circuit has no units; its file does not say of which model and task
            it is, or they cannot be had; or the text cannot be read.
    """
    circuit = load_circuit_of(path)
    require_units_in(circuit.graph)
    content = None if text is None else text_of(text, "text")
    problem = problem_again(circuit, path, Models(model, tell=tell), device=device)
    return unit_uses(problem, circuit, text=content, n_shown=n_shown, tell=tell)
