"""Write the interactive report of a finished run, or of a circuit without one, or of two."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.comparison.common_graph import how_compared
from circuitfind.comparison.roles import labels
from circuitfind.directories.config import RunConfig
from circuitfind.directories.decisions import read_decisions
from circuitfind.directories.directory import DECISIONS, PAGE, circuit_file, load_circuit_of
from circuitfind.directories.evaluation import evaluation_of
from circuitfind.directories.kinds import content_kind, require_search
from circuitfind.directories.results import read_result
from circuitfind.directories.work import ENVIRONMENT, read_config
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import CircuitfindError, GraphError, ReportError
from circuitfind.evaluation.assessment import Assessment
from circuitfind.evaluation.intervals import mean_interval
from circuitfind.evaluation.measured import Measured
from circuitfind.evaluation.scorecard import Scorecard, scorecard
from circuitfind.files import write_whole
from circuitfind.methods.base import Decision
from circuitfind.problem import Problem
from circuitfind.question import (
    FOUND_ON,
    Models,
    fingerprints,
    require_same,
    settings_of,
    what_changed,
)
from circuitfind.reports.page.drawing import (
    drawn_difference,
    drawn_edges,
    drawn_graph,
    even_layout,
    layout_of,
)
from circuitfind.reports.page.evaluation import drawn_evaluation
from circuitfind.reports.page.html import page_html
from circuitfind.reports.page.numbers import finite, short
from circuitfind.reports.page.patterns import attention_data
from circuitfind.reports.page.units import described_units
from circuitfind.reports.seen import Seen
from circuitfind.reports.terminal import drift_doubt
from circuitfind.store import read_json
from circuitfind.tasks import find_task
from circuitfind.verbs.draw import names_of, origin_line
from circuitfind.verbs.roles import read_roles, roles_file
from circuitfind.verbs.wish import config_of

MOST_NEEDED = 500
"""From how many edges on no edge is cut from the circuit again: that would take too long."""

_WITHOUT = "the report has no attention patterns and no intervals"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Run:
    """All that there is of a finished run, or of a circuit without one.

    Attributes:
        path: The run directory, or the directory of the circuit alone.
        config: What the circuit was found with.
        circuit: The circuit.
        problem: What it was found on; None where the model or the prompts cannot be had any more.
        card: Its scorecard.
        decisions: What is known of each edge; of a run, in the order of its search.
        search: Figures of the search; None of a circuit without one.
        provenance: Where the circuit comes from, in groups.
    """

    path: Path
    config: RunConfig
    circuit: Circuit
    problem: Problem | None
    card: Scorecard
    decisions: Sequence[Decision]
    search: Mapping[str, Any] | None
    provenance: Mapping[str, Mapping[str, Any]]


def write_report(
    path: Path,
    *,
    against: Path | None = None,
    out: Path | None = None,
    memory: int | None = None,
    model: Any = None,
    tell: Tell = lambda message: None,
) -> Path:
    """Write the report of a run, or of two side by side.

    A circuit without a search, from `import` or `patch --discover`, is measured for its report, and
    its page shows no search.

    Args:
        path: A run directory, the directory of a circuit, or a circuit file.
        against: Another one.
        out: File to write; by default `report.html` in the run directory, or `NAME.report.html`
            beside a circuit file; for two, `report-NAME.html` with the other one's name.
        memory: How many bytes may be taken beside the model; by default what the search was
            allowed.
        model: What `load_model` returned or takes; by default what the runs name.
        tell: Called with what the report lacks and why.

    Returns:
        The file.

    Raises:
        CircuitfindError: A run is not finished, or a file is damaged or cannot be written.
    """
    models = Models(model, tell)
    runs = [_read(place, models, memory, tell) for place in (path, against) if place is not None]
    # One run needs no name, and a report does not depend on the path of its run.
    names = ["this run"] if against is None else list(names_of(path, against))
    titles = [origin_line(run.circuit) or name for run, name in zip(runs, names, strict=True)]
    data = {
        "runs": [
            {"name": name, "title": title, **_run_data(run, memory)}
            for run, name, title in zip(runs, names, titles, strict=True)
        ],
        "comparison": _comparison(runs, names) if against else None,
    }
    beside = PAGE if against is None else f"report-{names[1].replace('/', '-').strip('-.')}.html"
    file = out or (path / beside if path.is_dir() else path.with_name(f"{path.stem}.{beside}"))
    try:
        write_whole(file, page_html(" | ".join(titles), data))
    except OSError as error:
        raise ReportError(f"cannot write the report {file}: {error.strerror}") from None
    return file


def _read(path: Path, models: Models, memory: int | None, tell: Tell) -> _Run:
    if content_kind(path) != "search" and circuit_file(path).is_file():
        return _circuit_alone(path, models, memory)
    require_search(path)
    result, config = read_result(path), read_config(RunConfig, path)
    environment, settings = read_json(path / ENVIRONMENT), asdict(config)
    options = {**settings.pop("options"), **settings.pop("selection")}
    return _Run(
        path,
        config,
        result.circuit,
        _problem(config, environment, models, tell),
        result.card,
        read_decisions(path / DECISIONS),
        result.search,
        {"settings": settings, "options": options, "environment": environment},
    )


def _circuit_alone(path: Path, models: Models, memory: int | None) -> _Run:
    """Measure a circuit that was not found by a search here.

    Raises:
        CircuitfindError: Its file does not say what it is about, or that cannot be had.
    """
    circuit = load_circuit_of(path)
    config = config_of(path, circuit, {})
    # Units were chosen by a search. Chosen anew, they could be others.
    graph = circuit.graph if circuit.graph.units else None
    problem = config.problem(models.again(config), graph=graph)
    require_same(circuit.origin, fingerprints(problem), f"the circuit in {path}", FOUND_ON)
    return _Run(
        path,
        config,
        circuit,
        problem,
        scorecard(IncrementalEngine(problem, memory), circuit),
        _known_of_edges(circuit),
        None,
        {"circuit": dict(settings_of(circuit))},
    )


def _known_of_edges(circuit: Circuit) -> list[Decision]:
    """Return which edges a circuit keeps, with its effects; without a unit they are scores."""
    graph, values = circuit.graph, circuit.effects
    kind = "effect" if circuit.origin.get("unit") else "score"
    found = []
    for edge in graph.edges():
        place = graph.index(edge)
        value = None if values is None or values[place].isnan() else float(values[place])
        if circuit.kept[place] or value is not None:
            figures = {kind: value}
            found.append(Decision(edge.name, bool(circuit.kept[place]), "scored", **figures))
    return found


def _run_data(run: _Run, memory: int | None) -> dict[str, Any]:
    circuit, problem, card = run.circuit, run.problem, run.card
    roles, evaluation = _roles(run), evaluation_of(run.path, circuit)
    seen = Seen.of(circuit.origin)
    memory = run.config.memory if memory is None else memory
    return {
        "unit": circuit.origin.get("unit", ""),
        "method": run.config.method,
        "threshold": None if run.search is None else run.config.threshold,
        "graph": drawn_graph(circuit.graph, roles, seen),
        "edges": drawn_edges(circuit, run.decisions),
        "layouts": {
            "circuit": layout_of(circuit.graph, circuit.edges, roles, seen),
            "all": even_layout(circuit.graph, roles, seen),
        },
        "scorecard": finite(asdict(card)),
        "warnings": _warnings(run, evaluation),
        "notes": list(dict.fromkeys([*card.notes, *(evaluation.notes if evaluation else ())])),
        "evaluation": None if evaluation is None else drawn_evaluation(evaluation),
        "search": None if run.search is None else _without_time(run.search),
        "attention": None if problem is None else attention_data(problem, circuit),
        "units": [] if problem is None else described_units(problem, circuit),
        "needed": {} if problem is None else _needed(problem, circuit, memory),
        "provenance": run.provenance,
    }


def _without_time(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a search but for its time, which differs from run to run."""
    found: dict[str, Any] = finite(
        {name: value for name, value in search.items() if not name.startswith("seconds")}
    )
    return found


def _warnings(run: _Run, evaluation: Assessment | None) -> list[str]:
    """Return why the figures cannot be trusted, each reason once."""
    found = [*run.card.doubts, *(evaluation.doubts if evaluation else ())]
    drift = None if run.search is None else drift_doubt(run.search)
    return list(dict.fromkeys([*found, *([drift] if drift else [])]))


def _roles(run: _Run) -> dict[str, str]:
    """Return what `circuitfind roles` has measured, or else what the task's paper says."""
    measured = read_roles(roles_file(run.path), run.circuit)
    return _published_roles(run) if measured is None else labels(measured)


def _published_roles(run: _Run) -> dict[str, str]:
    """Return what the task's paper calls the model's heads, if it is about this model."""
    known = find_task(run.config.task).known_circuit
    if known.get("model") != run.config.model:
        return {}
    heads: Mapping[str, tuple[str, ...]] = known.get("heads", {})
    return {name: role for role, names in heads.items() for name in names}


def _problem(
    config: RunConfig, environment: Mapping[str, Any], models: Models, tell: Tell
) -> Problem | None:
    """Return a run's problem, or None where its model is not to be had any more."""
    try:
        problem = config.problem(models.again(config))
    except CircuitfindError as error:
        tell(f"{_WITHOUT}: {error}")
        return None
    if changed := what_changed(environment, fingerprints(problem), "the run"):
        tell(f"{_WITHOUT}: {changed}")
        return None
    return problem


def _needed(problem: Problem, circuit: Circuit, memory: int | None) -> dict[str, list[Any]]:
    """Return how much the circuit needs each edge, with a 95 % interval where there is one.

    That is the rise of the loss when the edge alone is cut from the circuit. The effect that a
    search measured belongs to the moment of its test, when edges were still there that it cut
    later.
    """
    if circuit.n_edges > MOST_NEEDED:
        return {}
    measured, kept = Measured(IncrementalEngine(problem, memory)), circuit.kept.cpu()
    rises = problem.metric.sign * (measured.without_each_edge(kept) - measured.own([kept]))
    return {
        edge.name: [short(float(rise.mean())), *map(short, mean_interval(rise) or ())]
        for edge, rise in zip(circuit.edges, rises, strict=True)
    }


def _comparison(runs: Sequence[_Run], names: Sequence[str]) -> dict[str, Any]:
    """Return what two circuits share, and how they are compared, or why not."""
    one, other = runs
    ours, theirs = one.circuit, other.circuit
    try:
        remarks = how_compared((names[0], ours), (names[1], theirs))
        drawn = drawn_difference(ours, theirs, {**_roles(other), **_roles(one)})
    except GraphError as error:
        remark = f"The edges of {names[1]} cannot be compared with those of {names[0]}: {error}."
        return {"remarks": [remark]}
    return {"remarks": [f"{remark}." for remark in remarks], "difference": drawn}
