"""Run a finished run's search again under other conditions, and say how stable its circuit is.

Each repetition is an ordinary run in a directory of its own, which resumes where it was interrupted
and is not computed again where its circuit is there. A resample draws the run's own prompts with
replacement.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, load_circuit
from circuitfind.directories.config import RunConfig, config_of_origin
from circuitfind.directories.directory import (
    SCORECARD,
    RunDirectory,
    config_of_run,
    digest_of,
    load_circuit_of,
)
from circuitfind.directories.kinds import require_search
from circuitfind.directories.naming import path_beside
from circuitfind.directories.results import read_scorecard
from circuitfind.directories.stability import (
    CONSENSUS,
    VARIED,
    StabilityConfig,
    StabilityDirectory,
)
from circuitfind.directories.work import CIRCUIT, CONFIG
from circuitfind.errors import MethodError, RunDirectoryError, quoted
from circuitfind.evaluation.stability import Stability, consensus, stability
from circuitfind.evaluation.trust import foreword
from circuitfind.files import path_of
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.base import Progress
from circuitfind.question import FOUND_ON, Models, require_same
from circuitfind.reports.diagram import draw_frequencies
from circuitfind.verbs.discover import run_discovery


@dataclass(frozen=True)
class Stable:
    """Result of the repeated runs.

    Attributes:
        path: The directory that holds the repetitions and the results.
        stability: The figures.
        consensus: The edges of the consensus, with their frequencies as effects.
    """

    path: Path
    stability: Stability
    consensus: Circuit


def repeat_run(
    path: Path | str,
    *,
    varied: Sequence[str] = (),
    n: int = 5,
    share: float = 0.8,
    out: Path | None = None,
    memory: int | None = None,
    model: Any = None,
    tell: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Stable:
    """Repeat a finished run under other conditions.

    Args:
        path: The run directory.
        varied: What to vary; by default all that the run's method depends on.
        n: How many repetitions for each.
        share: From which share of the runs on an edge is in the consensus.
        out: Where the repetitions go; by default `NAME-stability` beside the run.
        memory: How many bytes may be taken beside the model; by default what the search was
            allowed.
        model: What `load_model` returned or takes; by default what the run names.
        tell: Called with what a user should know.
        on_progress: Called as each repetition searches.

    Raises:
        CircuitfindError: Anything that the user can do something about.
    """
    require(repetitions=n, share=share)
    path = path_of(path)
    require_search(path)
    original = load_circuit_of(path)
    config = config_of_run(path, original)
    config = replace(config, memory=config.memory if memory is None else memory)
    if not original.n_edges:
        raise MethodError(
            f"the circuit of {path} is empty, so there is nothing whose stability could be "
            "measured; search with a smaller threshold first"
        )
    chosen = _chosen(config, varied)
    out = out or path_beside(path, "stability", {})
    asked = StabilityConfig.extending(
        config,
        circuits=(digest_of(original),),
        varied=tuple(chosen),
        repetitions=n,
        share=share,
    )
    directory = StabilityDirectory.open(out, asked)
    if (there := directory.result()) is not None:
        tell(f"{out} is finished: its results are read, not computed again")
        return Stable(out, there, load_circuit(out / CONSENSUS))
    with directory.working():
        directory.begin()
        tell(f"{n * len(chosen)} repetitions of the search ({', '.join(chosen)}) in {out}")
        for line in foreword(read_scorecard(path / SCORECARD)[0].own):
            tell(line)
        repeated = _Repeated(path, original, config, out, Models(model, tell), on_progress)
        found = {name: [repeated.circuit(name, k, n) for k in range(n)] for name in chosen}
        runs = [original, *(circuit for circuits in found.values() for circuit in circuits)]
        figures = stability(original, found, share=share)
        origin = {**original.origin, "unit": "share of runs"}
        agreed = replace(consensus(runs, share), origin=origin)
        caption = f"{figures.n_runs} runs; edges that at least {share:.0%} of them keep are thick"
        assert agreed.effects is not None
        diagram = draw_frequencies(original.graph, agreed.effects, share=share, caption=[caption])
        directory.write_result(figures, agreed, diagram)
    return Stable(out, figures, agreed)


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
    if METHODS.find(config.method).option_for("order") is not None:
        yield "orders"
    if config.threshold is not None:
        yield "thresholds"


@dataclass
class _Repeated:
    """Repetitions of a run, with one model for all.

    Attributes:
        path: The run directory.
        original: Its circuit.
        config: Its settings.
        out: Where the repetitions go.
        models: The model, loaded once.
        on_progress: Called as each repetition searches.
    """

    path: Path
    original: Circuit
    config: RunConfig
    out: Path
    models: Models
    on_progress: Callable[[Progress], None]

    def circuit(self, varied: str, number: int, n: int) -> Circuit:
        """Return the circuit of a repetition, computing it where it is not there."""
        config = self._changed(varied, number, n)
        # Which thresholds there are depends on their number.
        name = config.threshold if varied == "thresholds" else number + 1
        place = self.out / f"{varied}-{name}"
        if (found := _of_first_version(place, config)) is not None:
            return found
        if not RunDirectory.open(place, config.pinned()).is_complete:
            now = {"model_fingerprint": self.models.again(config).fingerprint}
            require_same(self.original.origin, now, f"the circuit in {self.path}", FOUND_ON)
        return run_discovery(
            place, config, models=self.models, on_progress=self.on_progress
        ).circuit

    def _changed(self, varied: str, number: int, n: int) -> RunConfig:
        config, method = self.config, METHODS.find(self.config.method)
        if varied == "resamples":
            return replace(config, resample=number)
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


def _of_first_version(place: Path, config: RunConfig) -> Circuit | None:
    """Return the circuit of a resample as version 0.1.0 left it: without the run that found it."""
    if (place / CONFIG).is_file() or not (place / CIRCUIT).is_file():
        return None
    circuit = load_circuit_of(place)
    if config.differences(config_of_origin(circuit, place)):
        raise RunDirectoryError(f"{place} holds a repetition of another run; choose another --out")
    return circuit
