"""Everything that is measured when circuits are compared, two by two, and what that costs.

Circuits of one graph are compared by name. Circuits of different models are also matched by what
their components do, and circuits of one model that were found on different prompts are run on each
other's. For these two the models are loaded and the prompts written again.
"""

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit, EdgeScores
from circuitfind.comparison.common_graph import (
    circuit_on,
    common_graph,
    how_compared,
    require_matchable,
    same_places,
)
from circuitfind.comparison.matching import Matched, compare_matched, match
from circuitfind.comparison.overlap import Overlap, overlap
from circuitfind.comparison.profiles import Profiles, profiles
from circuitfind.comparison.result import Pair, Side
from circuitfind.comparison.roles import Role, find_roles
from circuitfind.comparison.transfer import N_RANDOM, Transfer, transfer
from circuitfind.directories.comparison import ComparisonConfig
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import PromptError, RunDirectoryError
from circuitfind.graph import Graph
from circuitfind.problem import Problem
from circuitfind.question import Models, Question, problem_again, question_key, says_its_question

Tell = Callable[[str], None]
Places = tuple[int, int]


@dataclass(frozen=True)
class Loaded:
    """A circuit with what its files say of it.

    Attributes:
        path: A run directory or a circuit file.
        name: What it is called here.
        digest: A hash of the circuit file.
        circuit: The circuit.
        effects: What was measured of its graph's edges, kept or not.
    """

    path: Path
    name: str
    digest: str
    circuit: Circuit
    effects: EdgeScores | None


def compare_all(
    loaded: Sequence[Loaded], settings: ComparisonConfig, tell: Tell, model: Any = None
) -> tuple[tuple[Side, ...], tuple[Pair, ...]]:
    """Compare each two circuits.

    Args:
        loaded: The circuits.
        settings: How to compare.
        tell: Called with what a user should know.
        model: The model of all circuits, or models by the names that the runs give them.

    Raises:
        CircuitfindError: A model or its prompts cannot be had, or two circuits have nothing in
            common by which they could be compared.
    """
    pairs = list(itertools.combinations(range(len(loaded)), 2))
    measured = _Measured(loaded, settings, Models(model, tell=tell), tell)
    for left, right in pairs:
        ours, theirs = loaded[left], loaded[right]
        if measured.is_matched((left, right)):
            require_matchable(ours.name, ours.circuit)
            require_matchable(theirs.name, theirs.circuit)
        else:
            for remark in how_compared((ours.name, ours.circuit), (theirs.name, theirs.circuit)):
                tell(remark)
    _tell_cost(measured, pairs, tell)
    roles = {i: measured.roles(i) for i in range(len(loaded)) if measured.is_known(i)}
    found = tuple(_pair(measured, pair) for pair in pairs)
    return tuple(_side(each, roles.get(i)) for i, each in enumerate(loaded)), found


class _Measured:
    """Measurements of each circuit's model, made when they are first needed."""

    def __init__(
        self, loaded: Sequence[Loaded], settings: ComparisonConfig, models: Models, tell: Tell
    ) -> None:
        self.loaded, self.settings, self._tell = loaded, settings, tell
        self._models = models
        self._found: dict[str, tuple[Problem, Profiles]] = {}
        self._roles: dict[str, tuple[Role, ...]] = {}

    def is_known(self, number: int) -> bool:
        """Return whether a circuit's problem is known and may be looked at."""
        return not self.settings.by_name and says_its_question(self.loaded[number].circuit)

    def same_model(self, pair: Places) -> bool | None:
        left, right = (self.loaded[number].circuit for number in pair)
        if left.graph.shape != right.graph.shape:
            return False
        ours, theirs = (each.origin.get("model_fingerprint") for each in (left, right))
        return None if ours is None or theirs is None else bool(ours == theirs)

    def is_matched(self, pair: Places) -> bool:
        """Return whether components are to be matched by what they do."""
        return all(map(self.is_known, pair)) and self.same_model(pair) is False

    def is_transferred(self, pair: Places) -> bool:
        """Return whether circuits are to be run on each other's prompts."""
        left, right = (self.loaded[number].circuit for number in pair)
        prompts = [each.origin.get("prompts_fingerprint") for each in (left, right)]
        return (
            all(map(self.is_known, pair))
            and bool(self.same_model(pair))
            and same_places(left.graph, right.graph)
            and prompts[0] != prompts[1]
        )

    def of(self, number: int) -> tuple[Problem, Profiles]:
        each = self.loaded[number]
        key = question_key(each.circuit)
        if key not in self._found:
            device = self.settings.device
            problem = problem_again(each.circuit, each.path, self._models, device=device)
            self._tell(f"measuring what the components of {each.name} do")
            self._found[key] = problem, profiles(problem)
        return self._found[key]

    def roles(self, number: int) -> tuple[Role, ...]:
        key = question_key(self.loaded[number].circuit)
        if key not in self._roles:
            problem, known = self.of(number)
            self._roles[key] = find_roles(problem, known.looks, known.effects)
        return self._roles[key]

    @property
    def n_problems(self) -> int:
        """Number of different problems among the circuits whose problem is known."""
        known = filter(self.is_known, range(len(self.loaded)))
        return len({question_key(self.loaded[number].circuit) for number in known})


def _tell_cost(measured: _Measured, pairs: Sequence[Places], tell: Tell) -> None:
    """Report what is about to be measured."""
    if measured.n_problems:
        tell(
            f"cost: what components do, in {measured.n_problems} times a model on a set of "
            "prompts, about 12 passes each (--by-name leaves this out)"
        )
    n_transfers = 2 * sum(map(measured.is_transferred, pairs))
    if n_transfers:
        tell(
            f"cost: {n_transfers} times a circuit on another's prompts, with {N_RANDOM} random "
            f"ones: {n_transfers * (N_RANDOM + 1)} passes"
        )


def _pair(measured: _Measured, pair: Places) -> Pair:
    left, right = (measured.loaded[number] for number in pair)
    is_matched = measured.is_matched(pair)
    graphs = left.circuit.graph, right.circuit.graph
    common = None if is_matched and graphs[0] != graphs[1] else common_graph(*graphs)
    if common is None and not is_matched:
        raise RunDirectoryError(
            f"{left.name} and {right.name} belong to different graphs and can only be matched by "
            "what their components do, for which their files must say of which model and task "
            "they are, and --by-name must not be given"
        )
    return Pair(
        *pair,
        measured.same_model(pair),
        None if common is None else _by_name(left, right, measured.settings),
        _matched(measured, pair) if is_matched else None,
        tuple(_transfers(measured, pair)) if measured.is_transferred(pair) else (),
        _places_compared(common, *graphs),
    )


def _places_compared(common: Graph | None, *graphs: Graph) -> tuple[str, ...] | None:
    """Return the places at which circuits are compared, where these are not those of both."""
    if common is None or all(set(graph.places) == set(common.places) for graph in graphs):
        return None
    return common.places


def _by_name(left: Loaded, right: Loaded, settings: ComparisonConfig) -> Overlap:
    return overlap(
        left.circuit,
        right.circuit,
        effects=(left.effects, right.effects),
        seed=settings.seed,
        draws=settings.draws,
    )


def _matched(measured: _Measured, pair: Places) -> Matched:
    left, right = (measured.loaded[number] for number in pair)
    settings = measured.settings
    try:
        counterparts = match(*(measured.of(number)[1] for number in pair))
    except PromptError as error:
        raise PromptError(f"{left.name} and {right.name}: {error}") from None
    return compare_matched(
        left.circuit, right.circuit, counterparts, seed=settings.seed, draws=settings.draws
    )


def _transfers(measured: _Measured, pair: Places) -> list[Transfer]:
    found = []
    for moved, on in (pair, pair[::-1]):
        engine = IncrementalEngine(measured.of(on)[0], measured.settings.memory)
        own = measured.loaded[on].circuit
        other = circuit_on(own.graph, measured.loaded[moved].circuit)
        found.append(transfer(engine, other, own, (moved, on), seed=measured.settings.seed))
    return found


def _side(each: Loaded, roles: tuple[Role, ...] | None) -> Side:
    circuit, origin, used = each.circuit, each.circuit.origin, each.circuit.heads_and_mlps
    return Side(
        name=each.name,
        path=str(each.path),
        digest=each.digest,
        task=_text(origin.get("task")),
        model=_text(origin.get("model_name")),
        method=_text(origin.get("method")),
        n_edges=circuit.n_edges,
        n_edges_full=circuit.graph.n_edges,
        components=tuple(name for name in circuit.graph.writer_index if name in used),
        roles=roles,
        question=_question(each),
        n_units_full=circuit.graph.n_units,
    )


def _question(each: Loaded) -> dict[str, Any] | None:
    """Return the question that a circuit answers, where its file says so."""
    with suppress(RunDirectoryError):
        return Question.of(each.circuit, each.path).identity
    return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
