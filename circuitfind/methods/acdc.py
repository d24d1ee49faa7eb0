"""ACDC: cut every edge whose absence the metric does not miss (Conmy et al. 2023, algorithm 1).

1. Start from the full graph; `current` is its loss.
2. Visit readers from the logits back, and each reader's writers from the latest back.
3. Cut the edge. If the loss rises by less than the threshold, it stays cut and `current` becomes
   the new loss; otherwise it is put back.
4. What leads into a component that nothing reads any more is cut untested.

The comparison is strict and signed: an edge whose removal lowers the loss is cut, however much it
lowers it, and a rise of exactly the threshold keeps the edge. Paper: arXiv 2304.14997.

With `group_qkv`, before the first visit to a head of a layer: for each port of the layer's heads,
in the order of their visits, all edges into it are cut at once, for good or not at all. This is the
original code's test of the edge between a head's input and its query, key or value, which it makes
for a whole layer before any single edge. A group that is kept leaves no decision: its edges are
then tested singly.

With `bounded`, KL divergence is computed from all logits only where bounds on it leave open whether
an edge is cut (`engine/kl_bounds.py`). The circuit is the same, and so are the effects of the edges
that are kept. The effect of most edges that are cut is the middle of its bounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from circuitfind.engine.candidates import Test
from circuitfind.engine.in_turn import Credit, IsCut
from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.graph import Edge
from circuitfind.limits import require_fields
from circuitfind.methods.base import (
    ORDER,
    SEED,
    THRESHOLD,
    Decision,
    Progress,
    Reason,
    StepwiseMethod,
    tested,
)
from circuitfind.methods.order import Order, Visit, settled_order, visits


@dataclass(frozen=True)
class AcdcOptions:
    """Settings of the ACDC search.

    Attributes:
        threshold: Rise of the loss from which on an edge is kept (the paper's tau), in the
            metric's unit.
        order: In which order edges are tested: `backward-index`, `forward-index` or `random`, which
            differ in the heads of a layer, or readers and edges in a sequence or a file, which must
            name every edge once, by itself or with its reader.
        absolute: Compare the size of the effect, so that edges whose removal lowers the loss by
            the threshold or more are kept too.
        group_qkv: Before the first edge into a head of a layer is tested singly, try for each port
            of the layer's heads to cut all edges into it at once: all v, then all k, then all q,
            as the original code does. It can change the circuit.
        bounded: Where bounds prove that an edge is cut, record its effect with an error instead of
            exactly. It changes no decision, and makes searches by KL divergence in large
            vocabularies faster.
        seed: Fixes the random order.
    """

    threshold: float = field(metadata=THRESHOLD)
    order: Order = field(default="backward-index", metadata=ORDER)
    absolute: bool = False
    group_qkv: bool = False
    bounded: bool = False
    seed: int = field(default=0, metadata=SEED)

    def __post_init__(self) -> None:
        require_fields(self)
        object.__setattr__(self, "order", settled_order(self.order))

    def is_cut(self, edge: str, effect: float) -> bool:
        """Return whether an edge with this effect is cut."""
        size = abs(effect) if self.absolute else effect
        return size < self.threshold


class Acdc(StepwiseMethod):
    """The ACDC search as an entry of the table of methods."""

    name = "acdc"
    summary = "cut edges one by one from the logits back, keep those the metric misses"
    paper = "Conmy et al. 2023, arXiv 2304.14997, algorithm 1"
    knows_moves = True
    options = AcdcOptions

    def run(
        self, engine: IncrementalEngine, options: AcdcOptions, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Search, yielding after each reader; a resumed search continues bit for bit.

        Raises:
            MethodError: The metric became infinite or NaN when an edge was cut.
        """
        yield from search_with(engine, options, engine.start(), resume)


def search_with(
    engine: IncrementalEngine,
    options: AcdcOptions,
    state: EngineState,
    resume: Sequence[Decision] = (),
) -> Iterator[Progress]:
    """Search among the edges that a state keeps; those that it has cut stay cut, untested."""
    plan = visits(engine.graph, options.order, options.seed)
    yield from search_from(
        engine,
        state,
        plan,
        options.is_cut,
        resume,
        group_ports=options.group_qkv,
        bounded=options.bounded,
    )


def search_from(
    engine: IncrementalEngine,
    state: EngineState,
    plan: Sequence[Visit],
    is_cut: IsCut,
    resume: Sequence[Decision] = (),
    *,
    group_ports: bool = False,
    bounded: bool = False,
) -> Iterator[Progress]:
    """Search among the edges that a state keeps, yielding after each visit and each layer's groups.

    Args:
        engine: The engine.
        state: What the search starts from; edges that it has cut already stay cut, untested.
        plan: All edges, in the order of the search.
        is_cut: The rule by which edges are cut.
        resume: Decisions of an earlier, interrupted run of the same search.
        group_ports: Whether all edges into a port of a head are tried at once first.
        bounded: Whether losses are computed only where bounds on them leave a decision open.

    Raises:
        MethodError: The metric became infinite or NaN when an edge was cut, or the earlier
            decisions are not those of this search.
    """
    search = _Search(engine, state, is_cut, resume, bounded=bounded)
    total = engine.graph.n_edges
    groups = _groups(engine, plan) if group_ports else {}
    for visit in plan:
        reader = engine.graph.readers[visit[0]]
        if reader.port and (made := search.groups(groups.pop(reader.layer, []))):
            yield Progress(search.done, total, tuple(made))
        if made := search.visit(visit):
            yield Progress(search.done, total, tuple(made))
    yield Progress(total, total, (), drift=engine.drift(search.state))


class _Search:
    """A search in progress.

    Attributes:
        state: The circuit so far.
        done: How many edges are decided.
    """

    def __init__(
        self,
        engine: IncrementalEngine,
        state: EngineState,
        is_cut: IsCut,
        resume: Sequence[Decision],
        *,
        bounded: bool,
    ) -> None:
        self.state, self.done = state, 0
        self._engine, self._is_cut, self._earlier = engine, is_cut, resume
        self._known: float | None = None
        self._cut_as_groups: set[int] = set()
        self._bounds = Credit() if bounded else None

    def visit(self, visit: Visit) -> list[Decision]:
        """Decide about the edges of a visit; return what an earlier run had not decided."""
        reader, writers = visit
        if reader in self._cut_as_groups:
            return []
        if len(self._earlier) >= len(writers):
            self._replay(visit, self._earlier[: len(writers)])
            return []
        kept, is_live = self.state.kept[:, reader], self.state.live_readers[reader]
        tests = self._engine.tests(
            self.state,
            reader,
            [w for w in writers if kept[w] and is_live],
            self._known,
            self._is_cut if self._bounds and self._bounds.is_left else None,
        )
        decisions = []
        for writer in writers:
            if not kept[writer]:
                decisions.append(self._untested(reader, writer, "scored"))
            elif not is_live:
                decisions.append(self._untested(reader, writer, "dead"))
            else:
                test = next(tests)
                test.kept = not self._is_cut(test.edge, test.effect)
                decisions.append(tested(test))
        return self._made(visit, decisions)

    def groups(self, groups: Sequence[Visit]) -> list[Decision]:
        """Try to cut all edges into each of some ports at once."""
        earlier = self._earlier_groups(groups)
        if earlier is not None:
            for visit, decisions in earlier:
                self._replay(visit, decisions)
                self._cut_as_groups.add(visit[0])
            return []
        made: list[Decision] = []
        for visit in groups:
            if decisions := self._group(visit):
                made += self._made(visit, decisions)
                self._cut_as_groups.add(visit[0])
        return made

    def _group(self, visit: Visit) -> list[Decision]:
        """Try to cut all edges into a port at once; return their decisions if they are cut."""
        (reader, writers), kept = visit, self.state.kept[:, visit[0]]
        there = [writer for writer in writers if kept[writer]]
        if not there or not self.state.live_readers[reader]:
            return []
        name = f"every edge into {self._engine.graph.readers[reader].name}"
        after = self._engine.loss(self._without(reader, there))
        test = Test(name, self._current, after)
        if not self._is_cut(name, test.effect):
            return []
        return [
            self._untested(reader, writer, "group", test.before, test.after)
            if kept[writer]
            else self._untested(reader, writer, "scored")
            for writer in writers
        ]

    def _earlier_groups(
        self, groups: Sequence[Visit]
    ) -> list[tuple[Visit, Sequence[Decision]]] | None:
        """Return the groups that an earlier run cut, or None if it did not get past them all."""
        found, done = [], 0
        for visit in groups:
            some = self._earlier[done : done + len(visit[1])]
            is_group = any(decision.reason == "group" for decision in some)
            if self._names(visit) == [d.edge for d in some] and is_group:
                found.append((visit, some))
                done += len(some)
        after = next((d.reason for d in self._earlier[done:] if d.reason != "scored"), None)
        is_past = len(found) == len(groups) or after in ("tested", "dead")
        return found if is_past else None

    def _made(self, visit: Visit, decisions: list[Decision]) -> list[Decision]:
        # From here on an interrupted run has decided nothing that would count.
        self._earlier = ()
        self._settle(visit, decisions)
        return decisions

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
        self._earlier = self._earlier[len(decisions) :]
        self._settle(visit, decisions)

    def _settle(self, visit: Visit, decisions: Sequence[Decision]) -> None:
        """Cut what was decided to be cut into a reader, all at once.

        Searches continue from this state, so that rounding depends on nothing but the decisions:
        a resumed search repeats it to the last bit.
        """
        reader, writers = visit
        self.done += len(decisions)
        gone = [w for w, decision in zip(writers, decisions, strict=True) if not decision.kept]
        if gone:
            self.state = self._without(reader, gone)
        # Edges that went untested changed nothing: they were cut before, or nothing reads them.
        measured = [each for each in decisions if not each.kept and each.after is not None]
        if measured:
            self._known = measured[-1].after if measured[-1].error is None else None
        if self._bounds is not None:
            n_tests = sum(each.reason == "tested" for each in decisions)
            self._bounds.count(n_tests, sum(each.error is not None for each in decisions))

    @property
    def _current(self) -> float:
        """The loss of the state."""
        if self._known is None:
            self._known = self._engine.loss(self.state)
        return self._known

    def _without(self, reader: int, writers: Sequence[int]) -> EngineState:
        return self._engine.cut(self.state, [(writer, reader) for writer in writers])

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
        return [self._name(visit[0], writer) for writer in visit[1]]

    def _name(self, reader: int, writer: int) -> str:
        graph = self._engine.graph
        return Edge(graph.writers[writer], graph.readers[reader]).name


def _groups(engine: IncrementalEngine, plan: Sequence[Visit]) -> dict[int | None, list[Visit]]:
    """Return the ports of each layer's heads with all edges into them."""
    readers = engine.graph.readers
    groups: dict[int | None, dict[int, list[int]]] = {}
    for reader, writers in plan:
        if readers[reader].port:
            groups.setdefault(readers[reader].layer, {}).setdefault(reader, []).extend(writers)
    return {layer: list(each.items()) for layer, each in groups.items()}
