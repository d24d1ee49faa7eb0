"""Run a finished run's search again under other conditions, and say how stable its circuit is.

Each repetition has a directory of its own and is not computed again where its circuit is there.
Those with other seeds, orders or thresholds are ordinary runs, which resume where they were
interrupted. A resample draws the run's own prompts with replacement.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from circuitfind.circuit import Circuit
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import MethodError, RunDirectoryError, quoted
from circuitfind.evaluation.stability import Stability, consensus, stability
from circuitfind.files import write_whole
from circuitfind.limits import require
from circuitfind.methods import find_method
from circuitfind.methods.search import search
from circuitfind.methods.settings import lifted, settled
from circuitfind.models.base import ResidualModel
from circuitfind.reports.diagram import draw_frequencies
from circuitfind.runs.again import model_again, require_unchanged
from circuitfind.runs.config import RunConfig, config_from
from circuitfind.runs.directory import (
    CIRCUIT,
    CONFIG,
    load_circuit_of,
    reported,
)
from circuitfind.runs.discover import problem_of, run_discovery
from circuitfind.runs.kinds import require_search
from circuitfind.runs.naming import path_beside

VARIED = ("resamples", "seeds", "orders", "thresholds")
STABILITY, CONSENSUS, DIAGRAM = "stability.json", "consensus.json", "consensus.svg"


@dataclass(frozen=True)
class Stable:
    """What came out.

    Attributes:
        path: The directory that holds the repetitions and the results.
        stability: The figures.
        consensus: The edges of the consensus, with their frequencies as effects.
    """

    path: Path
    stability: Stability
    consensus: Circuit


def repeat_run(
    path: Path,
    *,
    varied: Sequence[str] = (),
    n: int = 5,
    share: float = 0.8,
    out: Path | None = None,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Stable:
    """Repeat a finished run under other conditions.

    Args:
        path: The run directory.
        varied: What to vary; by default all that the run's method depends on.
        n: How many repetitions for each.
        share: From which share of the runs on an edge is in the consensus.
        out: Where the repetitions go; by default `NAME-stability` beside the run.
        model: What `load_model` returned or takes; by default what the run names.
        tell: Called with what a user should know.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    require(repetitions=n, share=share)
    require_search(path)
    with reported(path):
        config = config_from(path / CONFIG)
    original = load_circuit_of(path)
    if not original.n_edges:
        raise MethodError(
            f"the circuit of {path} is empty, so there is nothing whose stability could be "
            "measured; search with a smaller threshold first"
        )
    chosen = _chosen(config, varied)
    out = out or path_beside(path, "stability", {})
    with reported(out):
        out.mkdir(parents=True, exist_ok=True)
    tell(f"{n * len(chosen)} repetitions of the search ({', '.join(chosen)}) in {out}")
    repeated = _Repeated(config, out, lambda: _model(path, original, config, model))
    found = {name: [repeated.circuit(name, k, n) for k in range(n)] for name in chosen}
    runs = [original, *(circuit for circuits in found.values() for circuit in circuits)]
    figures = stability(original, found, share=share)
    agreed = replace(consensus(runs, share), origin={**original.origin, "unit": "share of runs"})
    caption = f"{figures.n_runs} runs; edges that at least {share:.0%} of them keep are thick"
    with reported(out):
        write_whole(out / STABILITY, json.dumps(figures.as_json(), indent=1) + "\n")
        write_whole(out / CONSENSUS, agreed.to_json())
        assert agreed.effects is not None
        diagram = draw_frequencies(original.graph, agreed.effects, share=share, caption=[caption])
        write_whole(out / DIAGRAM, diagram.svg())
    return Stable(out, figures, agreed)


def _model(path: Path, original: Circuit, config: RunConfig, given: Any) -> ResidualModel:
    """Return the run's model.

    Raises:
        RunDirectoryError: It is no longer the one that the circuit was found on.
    """
    model = model_again(config.model, given, dtype=config.dtype, device=config.device)
    require_unchanged(original, path, model)
    return model


def _chosen(config: RunConfig, varied: Sequence[str]) -> list[str]:
    possible = list(_possible(config))
    for name in varied:
        if name not in VARIED:
            raise MethodError(f"cannot vary {quoted(name)}; choose among {', '.join(VARIED)}")
        if name not in possible:
            raise MethodError(
                f"the method {quoted(config.method)} has nothing to vary as to {name}; choose "
                "among "
                f"{', '.join(possible)}"
            )
    return list(dict.fromkeys(varied)) or possible


def _possible(config: RunConfig) -> Iterator[str]:
    yield "resamples"
    if config.task_digest is None:
        yield "seeds"
    if find_method(config.method).option_for("order") is not None:
        yield "orders"
    if config.threshold is not None:
        yield "thresholds"


class _Repeated:
    """Repetitions of a run, with one model for all."""

    def __init__(self, config: RunConfig, out: Path, load: Callable[[], ResidualModel]) -> None:
        self._config, self._out, self._load = config, out, load
        self._model: ResidualModel | None = None

    def circuit(self, varied: str, number: int, n: int) -> Circuit:
        """Return the circuit of a repetition, computing it where it is not there."""
        if varied == "resamples":
            return self._resampled(self._out / f"resamples-{number + 1}", number)
        config = self._changed(varied, number, n)
        # Which thresholds there are depends on their number.
        name = config.threshold if varied == "thresholds" else number + 1
        return run_discovery(self._out / f"{varied}-{name}", config, load=self._loaded).circuit

    def _changed(self, varied: str, number: int, n: int) -> RunConfig:
        config, method = self._config, find_method(self._config.method)
        seed, order = method.option_for("seed"), method.option_for("order")

        def seeded(number: int) -> dict[str, Any]:
            return {**config.options, **({} if seed is None else {seed: number})}

        if varied == "seeds":
            of_run = config.seed + number + 1
            return replace(config, seed=of_run, options=seeded(of_run))
        if varied == "orders":
            assert order is not None
            return replace(config, options={**seeded(number), order: "random"})
        # Evenly on a logarithmic scale, from half to twice the threshold.
        factor = 2 ** (2 * number / (n - 1) - 1) if n > 1 else 2.0
        assert config.threshold is not None
        return config.at(float(f"{config.threshold * factor:.3g}"))

    def _resampled(self, place: Path, number: int) -> Circuit:
        config = self._config
        origin = {"resample": number, **config.identity}
        if (place / CIRCUIT).is_file():
            there = load_circuit_of(place)
            if lifted(there.origin) != json.loads(json.dumps(origin)):
                raise RunDirectoryError(
                    f"{place} holds a repetition of another run; choose another --out"
                )
            return there
        problem = problem_of(config, self._loaded(), seed=config.seed)
        n = len(problem.prompts)
        rows = np.random.default_rng([config.seed, number]).integers(0, n, n).tolist()
        problem = replace(problem, prompts=problem.prompts.select(rows))
        method = find_method(config.method)
        settings = settled(method, config.options, config.selection)
        engine = IncrementalEngine(problem, config.memory)
        found = search(engine, method, *settings)
        with reported(place):
            place.mkdir(parents=True, exist_ok=True)
            write_whole(place / CIRCUIT, replace(found.circuit, origin=origin).to_json())
        return load_circuit_of(place)

    def _loaded(self) -> ResidualModel:
        if self._model is None:
            self._model = self._load()
        return self._model
