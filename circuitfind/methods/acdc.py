"""ACDC: cut every edge whose absence the metric does not miss (Conmy et al. 2023, algorithm 1).

1. Start from the full graph; `current` is its loss.
2. Visit readers from the logits back, and each reader's writers from the latest back.
3. Cut the edge. If the loss rises by less than the threshold, it stays cut and `current` becomes
   the new loss; otherwise it is restored.
4. What leads into a component that nothing reads any more is cut untested.

The comparison is strict and signed: an edge whose removal lowers the loss goes, however much it
lowers it, and a rise of exactly the threshold keeps the edge. Paper: arXiv 2304.14997.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.errors import MethodError
from circuitfind.graph import Edge
from circuitfind.methods.base import (
    Decision,
    Progress,
    Reason,
    Selection,
    circuit_of,
    without_dead_ends,
)
from circuitfind.methods.order import Order, visits


@dataclass(frozen=True)
class AcdcOptions:
    """Settings of the ACDC search.

    Attributes:
        threshold: Rise of the loss from which on an edge is kept (the paper's tau), in the
            metric's unit.
        order: In which order the heads of a layer are visited.
        absolute: Compare the size of the effect, so that edges whose removal lowers the loss by
            the threshold or more are kept too.
        group_qkv: Before the edges into a head's port are tested singly, try to cut them all at
            once, as the original code does. It can change the circuit.
        prune: Remove dead ends afterwards where that changes nothing.
        seed: Fixes the random order.
    """

    threshold: float
    order: Order = "backward-index"
    absolute: bool = False
    group_qkv: bool = False
    prune: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise MethodError(
                f"the threshold is {self.threshold}; give a finite number in the metric's unit"
            )
        if self.order not in get_args(Order):
            raise MethodError(
                f"no order named {self.order!r}; choose one of {', '.join(get_args(Order))}"
            )


class Acdc:
    """The ACDC search as an entry of the table of methods."""

    name = "acdc"
    summary = "cut edges one by one from the logits back, keep those the metric misses"
    paper = "Conmy et al. 2023, arXiv 2304.14997, algorithm 1"
    options = AcdcOptions

    def run(
        self, engine: IncrementalEngine, options: AcdcOptions, resume: Sequence[Decision] = ()
    ) -> Iterator[Progress]:
        """Search, yielding after each reader; a resumed search continues bit for bit.

        Raises:
            MethodError: The metric became infinite or NaN when an edge was cut.
        """
        search = _Search(engine, options)
        done, total = 0, engine.graph.n_edges
        for reader, writers in visits(engine.graph, options.order, options.seed):
            replayed = resume[done : done + len(writers)]
            done += len(writers)
            if len(replayed) == len(writers):
                search.replay(reader, writers, replayed)
                continue
            yield Progress(done, total, tuple(search.visit(reader, writers)))
        yield Progress(total, total, (), drift=search.drift())

    def select(
        self, engine: IncrementalEngine, options: AcdcOptions, decisions: Sequence[Decision]
    ) -> Selection:
        """Return the kept edges, without dead ends where removing them is free."""
        circuit = circuit_of(engine.graph, decisions)
        return without_dead_ends(engine, circuit, prune=options.prune)


class _Search:
    """A search in progress: the circuit as it stands, and its loss."""

    def __init__(self, engine: IncrementalEngine, options: AcdcOptions) -> None:
        self._engine, self._options = engine, options
        self._state = engine.start()
        self._current = engine.loss(self._state)

    def visit(self, reader: int, writers: Sequence[int]) -> Iterator[Decision]:
        """Decide about all edges into one reader."""
        if not self._state.live_readers[reader]:
            self._state = self._cut(reader, writers)
            yield from self._all_cut(reader, writers, "dead")
            return
        group = self._test_group(reader, writers)
        if group is not None:
            yield from self._all_cut(reader, writers, "group", *group)
        else:
            for writer in writers:
                yield self._test(reader, writer)

    def replay(self, reader: int, writers: Sequence[int], decisions: Sequence[Decision]) -> None:
        """Repeat the cuts of an earlier run, call by call, so that rounding repeats too.

        Raises:
            MethodError: The decisions are not those of this search.
        """
        names = [self._edge(reader, writer).name for writer in writers]
        if names != [decision.edge for decision in decisions]:
            raise MethodError(
                f"the earlier decisions do not fit this search: {decisions[0].edge!r} stands where "
                f"{names[0]!r} should; start in an empty directory"
            )
        if decisions and decisions[0].reason != "tested":
            self._state = self._cut(reader, writers)
        else:
            for writer, decision in zip(writers, decisions, strict=True):
                if not decision.kept:
                    self._state = self._cut(reader, [writer])
        self._current = self._engine.loss(self._state)

    def drift(self) -> float:
        """Hold the state to a pass from scratch.

        Raises:
            MethodError: They differ by more than rounding explains.
        """
        return self._engine.require_no_drift(self._state)

    def _test(self, reader: int, writer: int) -> Decision:
        trial = self._cut(reader, [writer])
        before, after, effect = self._measure(trial, self._edge(reader, writer).name)
        kept = not self._goes(effect)
        if not kept:
            self._state, self._current = trial, after
        return Decision(self._edge(reader, writer).name, kept, "tested", before, after, effect)

    def _test_group(self, reader: int, writers: Sequence[int]) -> tuple[float, float] | None:
        """Try to cut all edges into a port at once; return the loss before and after if they go."""
        port = self._engine.graph.readers[reader].port
        if not (self._options.group_qkv and port):
            return None
        trial = self._cut(reader, writers)
        name = self._engine.graph.readers[reader].name
        before, after, effect = self._measure(trial, f"every edge into {name}")
        if not self._goes(effect):
            return None
        self._state, self._current = trial, after
        return before, after

    def _measure(self, trial: EngineState, name: str) -> tuple[float, float, float]:
        before, after = self._current, self._engine.loss(trial)
        if not math.isfinite(after):
            raise MethodError(
                f"the loss became {after} when {name} was cut; choose a metric that stays finite "
                "on these prompts, or a wider number type"
            )
        return before, after, after - before

    def _goes(self, effect: float) -> bool:
        size = abs(effect) if self._options.absolute else effect
        return size < self._options.threshold

    def _cut(self, reader: int, writers: Sequence[int]) -> EngineState:
        return self._engine.cut(self._state, [(writer, reader) for writer in writers])

    def _all_cut(
        self,
        reader: int,
        writers: Sequence[int],
        reason: Reason,
        before: float | None = None,
        after: float | None = None,
    ) -> Iterator[Decision]:
        for writer in writers:
            yield Decision(
                self._edge(reader, writer).name,
                kept=False,
                reason=reason,
                before=before,
                after=after,
            )

    def _edge(self, reader: int, writer: int) -> Edge:
        graph = self._engine.graph
        return Edge(graph.writers[writer], graph.readers[reader])
