"""ACDC: cut every edge whose absence the metric does not miss (Conmy et al. 2023, algorithm 1).

1. Start from the full graph; `current` is its loss.
2. Visit readers from the logits back, and each reader's writers from the latest back.
3. Cut the edge. If the loss rises by less than the threshold, it stays cut and `current` becomes
   the new loss; otherwise it is restored.
4. What leads into a component that nothing reads any more is cut untested.

The comparison is strict and signed: an edge whose removal lowers the loss goes, however much it
lowers it, and a rise of exactly the threshold keeps the edge. Paper: arXiv 2304.14997.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuitfind.engine.incremental import EngineState, IncrementalEngine
from circuitfind.limits import require_fields
from circuitfind.methods.base import Decision, Progress, Selection, circuit_of, without_dead_ends
from circuitfind.methods.edge_by_edge import search_from
from circuitfind.methods.order import Order, settled_order, visits


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
        require_fields(self)
        object.__setattr__(self, "order", settled_order(self.order))

    def goes(self, edge: str, effect: float) -> bool:
        """Return whether an edge with this effect stays cut."""
        size = abs(effect) if self.absolute else effect
        return size < self.threshold


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
        yield from search_with(engine, options, engine.start(), resume)

    def select(
        self, engine: IncrementalEngine, options: AcdcOptions, decisions: Sequence[Decision]
    ) -> Selection:
        """Return the kept edges, without dead ends where removing them is free."""
        circuit = circuit_of(engine.graph, decisions)
        return without_dead_ends(engine, circuit, prune=options.prune)


def search_with(
    engine: IncrementalEngine,
    options: AcdcOptions,
    state: EngineState,
    resume: Sequence[Decision] = (),
) -> Iterator[Progress]:
    """Search among the edges that a state keeps; edges that it has cut already stay cut, untested.

    Raises:
        MethodError: The metric became infinite or NaN when an edge was cut.
    """
    plan = visits(engine.graph, options.order, options.seed)
    yield from search_from(engine, state, plan, options.goes, resume, group_ports=options.group_qkv)
