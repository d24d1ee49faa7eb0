"""Forecast of an ACDC search's time, from a few of its tests.

The cost of a search follows the circuit that it leaves: an edge is tested if what it leads into
still leads to the logits, and a test runs again what still does. So a circuit is assumed, the tests
are counted for it, and of a few readers some edges are tested, each in the state in which the
search would meet it.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from circuitfind.engine.candidates import evaluations
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.engine.state import spans
from circuitfind.errors import MethodError
from circuitfind.graph import Graph
from circuitfind.methods.order import visits

_SAMPLES = 12
"""How many readers are sampled, spread over the visits."""

_TESTS = 8
"""How many edges into each are tested together: the width at which a search begins."""

MOST_SECONDS = 20.0
"""After this time no further reader is sampled; those left out are taken to be like their
neighbours."""

_LEAST_SECONDS, _SHARE = 5.0, 0.05
"""Sampling takes at least this time, and after that at most this share of what is forecast."""


@dataclass(frozen=True)
class Forecast:
    """Forecast of a search that ends at the assumed circuit.

    Attributes:
        tests: Edges that will be tested.
        evaluations: Cuts that will be evaluated for that, some of them in vain.
        operations: Floating-point operations of their matrix products.
        seconds: Their time, on this machine as it was just now.
        seconds_full_pass: Time of a pass from scratch, which brute force needs for every edge.
        operations_full_pass: Floating-point operations of its matrix products.
    """

    tests: int
    evaluations: int
    operations: float
    seconds: float
    seconds_full_pass: float
    operations_full_pass: int

    @property
    def seconds_per_test(self) -> float:
        return self.seconds / max(1, self.tests)


@dataclass(frozen=True)
class Visit:
    """Tests of edges into one reader.

    Attributes:
        reader: Its index.
        writers: Where the edges come from, in the order of the tests.
        evaluations: How many cuts are evaluated for the tests.
    """

    reader: int
    writers: Sequence[int]
    evaluations: int


def forecast(engine: IncrementalEngine, circuit: Bool[Tensor, "writer reader"]) -> Forecast:
    """Measure a few tests of a search that ends at a circuit.

    That takes about as long as `MOST_SECONDS` at most, and less where the search takes little.
    """
    started = time.monotonic()
    everything = engine.graph.edge_mask
    full_pass = _measured(lambda: engine.readout.loss(engine.recomputed(everything, "replaced")))
    tested = tested_visits(engine, circuit)
    size = math.ceil(len(tested) / _SAMPLES)
    parts = {first: tested[first : first + size] for first in range(0, len(tested), size)}
    measured: dict[int, tuple[float, float]] = {}
    operations = seconds = 0.0
    for first in _spread(list(parts)):
        allowed = min(MOST_SECONDS, max(_LEAST_SECONDS, _SHARE * seconds))
        if measured and time.monotonic() - started > allowed:
            break
        middle = first + len(parts[first]) // 2
        kept = _kept_after(tested[:middle], engine.graph, circuit)
        measured[first] = _sampled(engine, tested[middle], kept)
        operations, seconds = _total(measured, parts)
    return Forecast(
        tests=sum(len(visit.writers) for visit in tested),
        evaluations=sum(visit.evaluations for visit in tested),
        operations=operations,
        seconds=seconds,
        seconds_full_pass=full_pass[1],
        operations_full_pass=full_pass[0],
    )


def _total(
    measured: Mapping[int, tuple[float, float]], parts: Mapping[int, Sequence[Visit]]
) -> tuple[float, float]:
    """Return the operations and the seconds of all parts, each like the nearest measured one."""
    operations = seconds = 0.0
    for first, visits_there in parts.items():
        nearest = min(measured, key=lambda sampled: abs(sampled - first))
        times = sum(visit.evaluations for visit in visits_there)
        operations += measured[nearest][0] * times
        seconds += measured[nearest][1] * times
    return operations, seconds


def _spread(items: Sequence[int]) -> list[int]:
    """Return the items in an order whose beginning is spread over all of them."""
    return [*items[::4], *items[2::4], *items[1::2]]


def tested_visits(engine: IncrementalEngine, circuit: Bool[Tensor, "writer reader"]) -> list[Visit]:
    """Return the visits of a search that ends at a circuit, without those that test nothing."""
    graph = engine.graph
    kept = graph.edge_mask.clone()
    found = []
    for reader, writers in visits(graph, "backward-index", seed=0):
        if spans(graph, kept.numpy(), engine.horizon).readers[reader]:
            evaluated = evaluations(circuit[writers, reader].tolist(), engine.most_candidates)
            found.append(Visit(reader, writers, evaluated))
        kept[:, reader] &= circuit[:, reader]
    return found


def assumed_circuit(
    graph: Graph, n_components: int, seed: int = 0
) -> Bool[Tensor, "writer reader"]:
    """Return a random circuit of some heads and MLPs, each on a path to the logits.

    Every input of each of them reads one that comes before it, or the embedding; those that no
    other reads are read by the logits. Where moves inside attention are edges, all of theirs are
    kept.

    Raises:
        MethodError: The model has fewer heads and MLPs.
    """
    components = [graph.writer_index[writer.name] for writer in graph.heads_and_mlps]
    if not 1 <= n_components <= len(components):
        raise MethodError(
            f"{n_components} components were assumed; the model has {len(components)} heads and "
            "MLPs, so give a number between 1 and that"
        )
    draw = random.Random(seed)
    chosen = sorted(draw.sample(components, n_components))
    circuit = torch.zeros_like(graph.edge_mask)
    for component in chosen:
        for reader in graph.outer.inputs[component]:
            before = [w for w in (*graph.embeddings, *chosen) if graph.edge_mask[w, reader]]
            circuit[draw.choice(before), reader] = True
    unread = [writer for writer in chosen if not circuit[writer].any()]
    circuit[unread, graph.logits[-1]] = True
    rows, columns = graph.inner
    for head in set(chosen) & set(graph.heads if graph.moves else ()):
        moves = rows[graph.head_number[head]], columns[graph.head_number[head]]
        circuit[moves] = graph.edge_mask[moves]
    return circuit


def _kept_after(
    earlier: Sequence[Visit], graph: Graph, circuit: Bool[Tensor, "writer reader"]
) -> Bool[Tensor, "writer reader"]:
    """Return the edges that are kept after some visits; those that test nothing lead nowhere."""
    kept, readers = graph.edge_mask.clone(), [visit.reader for visit in earlier]
    kept[:, readers] &= circuit[:, readers]
    return kept


def _sampled(
    engine: IncrementalEngine, visit: Visit, kept: Bool[Tensor, "writer reader"]
) -> tuple[float, float]:
    """Return the operations and the seconds of an evaluation, from a few tests of a visit."""
    some = visit.writers[: min(_TESTS, engine.most_candidates)]
    state = engine.start_from(kept)
    counted, took = _measured(lambda: list(engine.cut_nested(state, visit.reader, some).losses()))
    return counted / len(some), took / len(some)


def _measured(act: Callable[[], object]) -> tuple[int, float]:
    """Return the operations and the seconds of something, done before to warm up.

    What is made once and remembered after that is in neither.
    """
    act()
    with FlopCounterMode(display=False) as counter:
        act()
    started = time.perf_counter()
    act()
    return counter.get_total_flops(), time.perf_counter() - started
