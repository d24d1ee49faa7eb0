"""The steps of an ACDC search: edges are cut one after another, each against what is left.

1. Visit edges in a given order; consecutive edges into one reader are a visit.
2. With `group_ports`, before the first visit to a head of a layer: for each port of the layer's
   heads, in the order of their visits, cut all edges into it at once. They go together or not
   at all. This is the original code's test of the edge between a head's input and its query, key
   or value, which it makes for a whole layer before any single edge (Conmy et al. 2023).
3. Cut each edge that is left. What leads into a component that nothing reads any more is cut
   untested, by itself and as a group.

Decisions come in the order in which they are made, so those of a layer's groups stand before those
of its single edges. A group that stays leaves no decision: its edges are then tested singly.
"""

import math
from collections.abc import Callable, Iterator, Sequence

from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.graph import Edge
from circuitfind.methods.base import Decision, Progress, Reason
from circuitfind.methods.order import Visit

Goes = Callable[[str, float], bool]
"""Says of an edge by name, or of a group by description, and of its effect, whether it goes."""

_FIRST_WIDTH, _LEAST_WIDTH = 8, 4
"""How many candidates to begin with, and at least after an edge that stays.

These, the growth by a half and the shrinking to a half evaluate few candidates in vain for few
batches; they were chosen on the decisions of the benchmark.
"""


def search_from(
    engine: IncrementalEngine,
    state: EngineState,
    plan: Sequence[Visit],
    goes: Goes,
    resume: Sequence[Decision] = (),
    *,
    group_ports: bool = False,
) -> Iterator[Progress]:
    """Search among the edges that a state keeps, yielding after each visit and each layer's groups.

    Edges that the state has cut already stay cut, untested.

    Args:
        engine: The problem, made ready to cut edges.
        state: What the search starts from.
        plan: All edges, in the order of the search.
        goes: The rule by which edges are cut.
        resume: Decisions of an earlier, interrupted run of the same search.
        group_ports: Whether all edges into a port of a head are tried at once first.

    Raises:
        MethodError: The metric became infinite or NaN when an edge was cut, or the earlier
            decisions are not those of this search.
    """
    search = _Search(engine, state, goes)
    done, total = 0, engine.graph.n_edges
    for step in _steps(engine, plan) if group_ports else plan:
        if isinstance(step, list):
            taken, decisions = search.groups(step, resume[done:])
        else:
            taken, decisions = search.visit(step, resume[done:])
        done += taken + len(decisions)
        if decisions:
            # From here on an interrupted run has decided nothing that would count.
            resume = resume[: done - len(decisions)]
            yield Progress(done, total, tuple(decisions))
    yield Progress(total, total, (), drift=search.drift())


def evaluations(stays: Sequence[bool], most: int) -> int:
    """Return how many cuts are evaluated to test edges of which these stay, at most `most` at once.

    They are more than the edges: what was evaluated after an edge that stays is evaluated again.
    """
    done, width, evaluated = 0, _FIRST_WIDTH, 0
    while done < len(stays):
        batch = stays[done : done + min(width, most)]
        evaluated += len(batch)
        any_stays = any(batch)
        done += batch.index(True) + 1 if any_stays else len(batch)
        width = _next_width(min(width, most), stays=any_stays)
    return evaluated


def _next_width(width: int, *, stays: bool) -> int:
    return max(_LEAST_WIDTH, width // 2) if stays else width + width // 2


def _steps(engine: IncrementalEngine, plan: Sequence[Visit]) -> Iterator[Visit | list[Visit]]:
    """Yield the visits, and before the first to a layer's heads the groups of all its ports."""
    readers = engine.graph.readers
    groups: dict[int | None, dict[int, list[int]]] = {}
    for reader, writers in plan:
        if readers[reader].port:
            groups.setdefault(readers[reader].layer, {}).setdefault(reader, []).extend(writers)
    for reader, writers in plan:
        of_layer = groups.pop(readers[reader].layer, None) if readers[reader].port else None
        if of_layer is not None:
            yield list(of_layer.items())
        yield reader, writers


class _Search:
    """A search in progress: the circuit as it stands, and its loss."""

    def __init__(self, engine: IncrementalEngine, state: EngineState, goes: Goes) -> None:
        self._engine, self._state, self._goes = engine, state, goes
        self._current = engine.loss(self._state)
        self._gone: set[int] = set()
        """Readers all of whose edges went as a group."""

    def visit(self, visit: Visit, earlier: Sequence[Decision]) -> tuple[int, list[Decision]]:
        """Decide about the edges of a visit.

        Returns:
            How many decisions were taken over from an earlier run, and those made here.
        """
        reader, writers = visit
        if reader in self._gone:
            return 0, []
        if len(earlier) >= len(writers):
            self._replay(visit, earlier[: len(writers)])
            return len(writers), []
        kept = self._state.kept[:, reader]
        there = [writer for writer in writers if kept[writer]]
        decided = iter(self._decide(reader, there))
        decisions = [
            next(decided) if kept[writer] else self._untested(reader, writer, "scored")
            for writer in writers
        ]
        self._settle(visit, decisions)
        return 0, decisions

    def groups(
        self, groups: Sequence[Visit], earlier: Sequence[Decision]
    ) -> tuple[int, list[Decision]]:
        """Try to cut all edges into each of some ports at once.

        Returns:
            How many decisions were taken over from an earlier run, and those made here.
        """
        found = self._earlier_groups(groups, earlier)
        if found is not None:
            for visit, decisions in found:
                self._replay(visit, decisions)
                self._gone.add(visit[0])
            return sum(len(decisions) for _, decisions in found), []
        made = []
        for visit in groups:
            decisions = self._group(visit)
            if decisions:
                self._settle(visit, decisions)
                self._gone.add(visit[0])
                made += decisions
        return 0, made

    def _earlier_groups(
        self, groups: Sequence[Visit], earlier: Sequence[Decision]
    ) -> list[tuple[Visit, Sequence[Decision]]] | None:
        """Return the groups that an earlier run cut, or None if it did not get past them all."""
        found, done = [], 0
        for visit in groups:
            some = earlier[done : done + len(visit[1])]
            if self._names(visit) == [d.edge for d in some] and _any_group(some):
                found.append((visit, some))
                done += len(some)
        after = next((each.reason for each in earlier[done:] if each.reason != "scored"), None)
        is_past = len(found) == len(groups) or after in ("tested", "dead")
        return found if is_past else None

    def _replay(self, visit: Visit, decisions: Sequence[Decision]) -> None:
        """Repeat what an earlier run of the search decided.

        Raises:
            MethodError: The decisions are not those of this search.
        """
        names = self._names(visit)
        if names != [decision.edge for decision in decisions]:
            raise MethodError(
                f"the earlier decisions do not fit this search: {decisions[0].edge!r} stands where "
                f"{names[0]!r} should; start in an empty directory"
            )
        self._settle(visit, decisions)

    def _settle(self, visit: Visit, decisions: Sequence[Decision]) -> None:
        """Cut what was decided to be cut into a reader, all at once.

        Searches continue from this state, so that rounding depends on nothing but the decisions:
        a resumed search repeats it to the last bit.
        """
        reader, writers = visit
        gone = [w for w, decision in zip(writers, decisions, strict=True) if not decision.kept]
        if gone:
            self._state = self._cut(reader, gone)
        # Edges that went untested changed nothing: they were cut before, or nothing reads them.
        measured = [each.after for each in decisions if not each.kept and each.after is not None]
        if measured:
            self._current = measured[-1]

    def drift(self) -> float:
        """Return how far the state is from a pass from scratch."""
        return self._engine.drift(self._state)

    def _decide(self, reader: int, writers: Sequence[int]) -> list[Decision]:
        if writers and not self._state.live_readers[reader]:
            return [self._untested(reader, writer, "dead") for writer in writers]
        return list(self._test_all(reader, writers))

    def _test_all(self, reader: int, writers: Sequence[int]) -> Iterator[Decision]:
        """Test edges one after the other, many at a time.

        Candidates are nested: the first edge cut, the first two, and so on. Up to the first edge
        that must stay these are the very states that testing one by one would meet; what comes
        after it is evaluated again. The number of candidates grows while edges go and shrinks
        when one stays.
        """
        state, before = self._state, self._current
        done, width = 0, _FIRST_WIDTH
        while done < len(writers):
            width = min(width, self._engine.most_candidates)
            batch = writers[done : done + width]
            trial = self._engine.cut_nested(state, reader, batch)
            gone, stays = 0, False
            for writer, after in zip(batch, trial.losses(), strict=True):
                decision = self._decision(self._name(reader, writer), before, after)
                yield decision
                if stays := decision.kept:
                    break
                gone, before = gone + 1, after
            if gone:
                kept = state.kept.copy()
                kept[batch[:gone], reader] = False
                state = trial.pick(gone - 1, kept)
            done += gone + stays
            width = _next_width(width, stays=stays)

    def _decision(self, name: str, before: float, after: float) -> Decision:
        effect = self._effect(name, before, after)
        return Decision(name, not self._goes(name, effect), "tested", before, after, effect)

    def _group(self, visit: Visit) -> list[Decision]:
        """Try to cut all edges into a port at once; return their decisions if they go."""
        reader, writers = visit
        kept = self._state.kept[:, reader]
        there = [writer for writer in writers if kept[writer]]
        if not there or not self._state.live_readers[reader]:
            return []
        before, after = self._current, self._engine.loss(self._cut(reader, there))
        name = f"every edge into {self._engine.graph.readers[reader].name}"
        if not self._goes(name, self._effect(name, before, after)):
            return []
        return [
            self._untested(reader, writer, "group", before, after)
            if kept[writer]
            else self._untested(reader, writer, "scored")
            for writer in writers
        ]

    def _effect(self, name: str, before: float, after: float) -> float:
        if not math.isfinite(after):
            raise MethodError(
                f"the loss became {after} when {name} was cut; choose a metric that stays finite "
                "on these prompts, or a wider number type"
            )
        return after - before

    def _cut(self, reader: int, writers: Sequence[int]) -> EngineState:
        return self._engine.cut(self._state, [(writer, reader) for writer in writers])

    def _untested(
        self,
        reader: int,
        writer: int,
        reason: Reason,
        before: float | None = None,
        after: float | None = None,
    ) -> Decision:
        """Return the decision to cut an edge that was not tested by itself."""
        return Decision(self._name(reader, writer), False, reason, before, after)  # noqa: FBT003

    def _names(self, visit: Visit) -> list[str]:
        reader, writers = visit
        return [self._name(reader, writer) for writer in writers]

    def _name(self, reader: int, writer: int) -> str:
        graph = self._engine.graph
        return Edge(graph.writers[writer], graph.readers[reader]).name


def _any_group(decisions: Sequence[Decision]) -> bool:
    return any(decision.reason == "group" for decision in decisions)
