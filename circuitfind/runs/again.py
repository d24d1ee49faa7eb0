"""The problem that a circuit was found on, built again from what its file says of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.engine.direction import with_direction
from circuitfind.errors import ModelError, RunDirectoryError
from circuitfind.metrics import Metric, find_metric
from circuitfind.models.base import ResidualModel
from circuitfind.models.loading import load_model
from circuitfind.models.precision import precision_note
from circuitfind.models.zoo import ZOO
from circuitfind.patching.metric import default_metric
from circuitfind.problem import Problem, assemble
from circuitfind.prompts import PromptPairs
from circuitfind.tasks import find_task
from circuitfind.tasks.base import Task

_NEEDED = ("task", "model", "n_prompts", "seed")


def says_its_problem(circuit: Circuit) -> bool:
    """Tell whether a circuit's file says of which task and model it is."""
    return all(name in settings_of(circuit) for name in _NEEDED)


def problem_key(circuit: Circuit) -> str:
    """Return what is the same for circuits that were found on one problem, and for no others.

    Raises:
        TypeError: The circuit's file says something that is not plain values.
    """
    settings = settings_of(circuit)
    names = ("dtype", "metric", "ablation", "model_fingerprint", "prompts_fingerprint")
    graph = circuit.graph
    facts = [settings.get(name) for name in (*_NEEDED, *names)]
    return json.dumps([*facts, repr(graph.shape), graph.split_qkv, graph.split_embedding])


def settings_of(circuit: Circuit) -> Mapping[str, Any]:
    """Return what a circuit was found with; circuits from patching have it one level deeper."""
    origin = circuit.origin
    return {**origin["settings"], **origin} if "settings" in origin else origin


def _metric(name: str | None, prompts: PromptPairs, task: Task) -> Metric:
    """Return the metric of a circuit; only circuits from patching may name none."""
    return default_metric(prompts, find_metric(task.metric)) if name is None else find_metric(name)


def named_or_given(name: str, given: Any, *, dtype: str | None, device: str) -> ResidualModel:
    """Return the given model, or what `load_model` makes of it, or else of the name."""
    if isinstance(given, ResidualModel):
        return given
    return load_model(name if given is None else given, dtype=dtype, device=device)


def model_again(name: str, given: Any = None, *, dtype: str | None, device: str) -> ResidualModel:
    """Return the model that a finished run means: the given one, or the one that it names.

    Args:
        name: What the run calls its model.
        given: What `load_model` returned or takes; None where it is to be loaded by its name.
        dtype: Number type of the weights, where they are loaded.
        device: Where to compute, likewise.

    Raises:
        ModelError: The name leads to no model; the message says how to give the model instead.
    """
    try:
        return named_or_given(name, given, dtype=dtype, device=device)
    except ModelError as error:
        if given is not None or name in ZOO or Path(name).exists():
            raise
        raise ModelError(
            f"{error}; if {name!r} is a model that was given in Python, give it again (model=...), "
            f"or save it with its tokenizer (save_pretrained) as the directory {name!r} here"
        ) from None


@dataclass
class Problems:
    """Builds problems, loading each model once.

    Attributes:
        device: Where to compute.
        given: The model of all circuits, or models by the names that the circuits' files give them,
            where they need not be loaded by these names (`model_again`).
        tell: Called with what a user should know of a model.
        models: The models loaded so far, by what was loaded.
    """

    device: str = "cpu"
    given: Any = None
    tell: Callable[[str], None] = lambda message: None
    models: dict[tuple[str, str | None], ResidualModel] = field(default_factory=dict)

    def of(self, circuit: Circuit, path: Path) -> Problem:
        """Return the problem that a circuit was found on.

        Args:
            circuit: The circuit.
            path: Where it was read, for messages.

        Raises:
            RunDirectoryError: Its file does not say of which task and model it is, or the model or
                the prompts have changed since.
            CircuitfindError: The task or the model cannot be had.
        """
        settings = settings_of(circuit)
        missing = [name for name in _NEEDED if name not in settings]
        if missing:
            raise RunDirectoryError(
                f"{path} does not say of which model and task it is (it has no {missing[0]!r}), "
                "and what its components do cannot be measured without; give a run directory, or "
                "a circuit file with its origin"
            )
        model = self._model(str(settings["model"]), settings.get("dtype"))
        task = find_task(str(settings["task"]))
        prompts = task.write_prompts(
            model.vocabulary, int(settings["n_prompts"]), int(settings["seed"])
        )
        require_unchanged(circuit, path, model, prompts.fingerprint)
        metric = with_direction(_metric(settings.get("metric"), prompts, task), model, prompts)
        ablation = settings.get("ablation", "resample")
        return assemble(model, prompts, metric, ablation, graph=circuit.graph)

    def _model(self, name: str, dtype: str | None) -> ResidualModel:
        if (name, dtype) not in self.models:
            given = self.given.get(name) if isinstance(self.given, Mapping) else self.given
            model = model_again(name, given, dtype=dtype, device=self.device)
            if (note := precision_note(model)) is not None:
                self.tell(note)
            self.models[name, dtype] = model
        return self.models[name, dtype]


def require_unchanged(
    circuit: Circuit, path: Path, model: ResidualModel, prompts: str | None = None
) -> None:
    """Refuse a model, and prompts, that are not those that a circuit was found on.

    Raises:
        RunDirectoryError: One of them is another.
    """
    now = {"model_fingerprint": model.fingerprint, "prompts_fingerprint": prompts}
    for name, value in now.items():
        if value is not None and circuit.origin.get(name, value) != value:
            part = name.removesuffix("_fingerprint")
            verb = "is not the one" if part == "model" else "are not those"
            raise RunDirectoryError(
                f"the {part} of {path} {verb} that its circuit was found on; restore what it "
                "was found on, or search again"
            )
