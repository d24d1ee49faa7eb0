"""Match the components of two models by what they do, and compare the circuits so matched.

Heads have no identity across models: head 3 of one may do what head 7 of another does, in another
layer. The distance of two heads is the sum of three numbers from 0 to 1:

    looks     half the sum of the differences in what they attend to (1 at most), averaged over the
              positions they look from, each weighted by how much the two heads act there
    effects   the sum of the differences of their contributions (1 at most)
    depth     the difference in relative depth

and that of two MLPs is the sum of the last two. Heads are assigned to heads and MLPs to MLPs, one
to one, so that the sum of distances is smallest (the linear assignment problem). Then each edge of
one circuit has a counterpart in the other model, if both its ends have, and the circuits are
compared edge by edge. An edge into a shared key or value head counts once for each head that uses
it.

By chance: the right circuit with the heads of each layer exchanged at random, while what they do
stays where it was. It keeps its size, its layer profile, its shape and its degrees; what is tested
is whether heads that do the same are wired in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from circuitfind.circuit import Circuit
from circuitfind.comparison.chance import DRAWS, EXCHANGED_HEADS, Distribution, counted, exchanges
from circuitfind.comparison.common_graph import circuit_on
from circuitfind.comparison.overlap import Shared, compared
from circuitfind.comparison.profiles import Profiles, require_comparable
from circuitfind.graph import Graph, Kind

Cost = Float[Tensor, "left right"]

Triple = tuple[int, int, float]
"""A left writer, its counterpart, and how alike they are."""


@dataclass(frozen=True)
class Counterparts:
    """Two components that do the most alike.

    Attributes:
        left: A component of the left model.
        right: One of the right model.
        similarity: 1 if nothing tells them apart, 0 if everything does.
        in_left: Whether the left circuit uses it.
        in_right: Whether the right circuit uses it.
    """

    left: str
    right: str
    similarity: float
    in_left: bool
    in_right: bool


@dataclass(frozen=True)
class Matched:
    """Two circuits, matched by what their components do.

    Attributes:
        counterparts: The components and their counterparts, in the order of the left ones.
        edges: The edges, in the names of the left model where they have a counterpart in it.
        components: The heads and MLPs at work, likewise.
    """

    counterparts: tuple[Counterparts, ...]
    edges: Shared
    components: Shared


def match(left: Profiles, right: Profiles) -> list[Triple]:
    """Return which writers do the most alike, left and right, and how alike.

    Raises:
        PromptError: The profiles are on prompts that name other positions.
    """
    require_comparable(left, right)
    found = _embeddings(left.graph, right.graph)
    for kind in ("head", "mlp"):
        rows, columns = (_indices(each.graph, kind) for each in (left, right))
        if not len(rows) or not len(columns):
            continue
        cost = distances(left, right, rows, columns)
        most = 3 if kind == "head" else 2
        found += [
            (int(rows[i]), int(columns[j]), 1 - float(cost[i, j]) / most)
            for i, j in zip(*linear_sum_assignment(cost.numpy()), strict=True)
        ]
    return sorted(found)


def distances(
    left: Profiles, right: Profiles, rows: Int[Tensor, " left"], columns: Int[Tensor, " right"]
) -> Cost:
    """Return how far apart what some writers do is: heads and heads, or MLPs and MLPs."""
    parts = (left.parts[rows][:, None] - right.parts[columns][None]).abs().sum(-1).clamp(max=1)
    depth = (left.depth[rows][:, None] - right.depth[columns][None]).abs()
    if left.graph.writers[int(rows[0])].kind == "head":
        return parts + depth + _look_distances(left, right, rows, columns)
    return parts + depth


def _look_distances(
    left: Profiles, right: Profiles, rows: Int[Tensor, " left"], columns: Int[Tensor, " right"]
) -> Cost:
    ours, theirs = _looks_of(left, rows), _looks_of(right, columns)
    # No prompt has the target: nothing is known of either head.
    apart = (ours[:, None] - theirs[None]).abs().nan_to_num(0.0).sum(-1).div(2).clamp(max=1)
    acts = (
        left.effects.by_place.T[rows].abs()[:, None] + right.effects.by_place.T[columns].abs()[None]
    )
    weight = acts + 1e-9
    return (apart * weight).sum(-1) / weight.sum(-1)


def _looks_of(
    known: Profiles, writers: Int[Tensor, " writer"]
) -> Float[Tensor, "writer place target"]:
    return known.looks.excess[:, :, writers].permute(2, 0, 1)


def compare_matched(
    left: Circuit,
    right: Circuit,
    matched: Sequence[Triple],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Matched:
    """Compare two circuits whose components have counterparts.

    Args:
        left: A circuit.
        right: A circuit of any model.
        matched: What `match` returned.
        seed: Fixes what is drawn at random.
        draws: How many exchanges of heads are drawn where there are too many to try all.
    """
    left, right = (circuit_on(circuit.graph.outer, circuit) for circuit in (left, right))
    counterpart = _table(left.graph, right.graph, matched)
    merged = left.graph.split_qkv != right.graph.split_qkv
    ours, theirs = (links_of(circuit, merged=merged) for circuit in (left, right))
    working = [[(w,) for w in _working(circuit)] for circuit in (left, right)]
    ways = exchanges(right.graph, seed=seed, draws=draws).writers
    return Matched(
        _counterparts(left, right, matched),
        _compared(left.graph, right.graph, (ours, theirs), counterpart, ways),
        _compared(left.graph, right.graph, (working[0], working[1]), counterpart, ways),
    )


Item = tuple[int, ...]
"""An edge between components, as writer, reader and the number of its port; or a component.

Components are numbered as writers; the logits come after the last one.
"""

_PORTS = ("", "q", "k", "v", "qkv")


def links_of(circuit: Circuit, *, merged: bool = False) -> list[Item]:
    """Return a circuit's edges as they join components; shared keys once for each head at work.

    Args:
        circuit: The circuit.
        merged: Whether q, k and v are told apart no more, for comparison with a graph that merges
            them.
    """
    graph, heads = circuit.graph, set(_working(circuit))
    found: dict[Item, None] = {}
    for edge in circuit.edges:
        port = edge.reader.port or ""
        number = _PORTS.index("qkv" if merged and port else port)
        writer, reader = graph.index(edge)
        fed = graph.feeds[reader] or (len(graph.writers),)
        at_work = [component for component in fed if component in heads] or fed
        for component in fed if len(fed) == 1 else at_work:
            found[writer, component, number] = None
    return list(found)


def _working(circuit: Circuit) -> list[int]:
    names = set(circuit.heads_and_mlps)
    return [i for i, writer in enumerate(circuit.graph.writers) if writer.name in names]


def _table(left: Graph, right: Graph, matched: Sequence[Triple]) -> Int[np.ndarray, " right"]:
    """Return the left counterpart of every right component; -1 where there is none."""
    found = np.full(len(right.writers) + 1, -1)
    for i, j, _ in matched:
        found[j] = i
    found[-1] = len(left.writers)
    return found


def _compared(
    left: Graph,
    right: Graph,
    items: tuple[Sequence[Item], Sequence[Item]],
    counterpart: Int[np.ndarray, " right"],
    ways: Int[np.ndarray, "way writer"],
) -> Shared:
    ours, theirs = items
    moved = [_moved(item, counterpart) for item in theirs]
    in_left, in_right = set(ours), set(moved)
    return compared(
        tuple(_name(left, item) for item in ours if item in in_right),
        tuple(_name(left, item) for item in ours if item not in in_right),
        tuple(
            _name(right, item)
            for item, place in zip(theirs, moved, strict=True)
            if place not in in_left
        ),
        {EXCHANGED_HEADS: shared_by_match(left, items, counterpart, ways)},
    )


def _moved(item: Item, counterpart: Int[np.ndarray, " right"]) -> Item:
    """Return where an item of the right circuit is in the left model; -1 is nowhere."""
    return (*(int(counterpart[end]) for end in item[:2]), *item[2:])


def _name(graph: Graph, item: Item) -> str:
    names = [graph.writers[end].name if end < len(graph.writers) else "logits" for end in item[:2]]
    port = _PORTS[item[2]] if len(item) > 2 else ""
    return "->".join(names) + (f".{port}" if port else "")


def shared_by_match(
    left: Graph,
    items: tuple[Sequence[Item], Sequence[Item]],
    counterpart: Int[np.ndarray, " right"],
    ways: Int[np.ndarray, "way writer"],
) -> Distribution:
    """Return how many items are shared in each way of exchanging the right circuit's heads."""
    ours, theirs = items
    # One row more than there are components: that of -1, where nothing is.
    n = len(left.writers) + 2
    known = np.zeros((n, n, len(_PORTS)), dtype=bool)
    for item in ours:
        known[_padded(item)] = True
    logits = np.full((len(ways), 1), len(counterpart) - 1)
    moved = counterpart[np.concatenate([ways, logits], axis=1)]
    shares = np.zeros(len(ways), dtype=np.int64)
    for item in theirs:
        writer, reader, port = _padded(item)
        shares += known[moved[:, writer], moved[:, reader], port]
    return counted(shares)


def _padded(item: Item) -> tuple[int, int, int]:
    """Return a component as an edge of it to itself, so that one table serves both."""
    return item if len(item) == 3 else (item[0], item[0], 0)


def _counterparts(
    left: Circuit, right: Circuit, matched: Sequence[Triple]
) -> tuple[Counterparts, ...]:
    ours, theirs = set(left.components), set(right.components)
    found = []
    for i, j, similarity in matched:
        one, other = left.graph.writers[i].name, right.graph.writers[j].name
        found.append(Counterparts(one, other, similarity, one in ours, other in theirs))
    return tuple(found)


def _embeddings(left: Graph, right: Graph) -> list[Triple]:
    """Pair embeddings; one that is split in one model alone is paired by its tokens."""
    names = [{graph.writers[i].name for i in graph.embeddings} for graph in (left, right)]
    return [
        (left.writer_index[name], right.writer_index[name], 1.0) for name in names[0] & names[1]
    ]


def _indices(graph: Graph, kind: Kind) -> Int[Tensor, " writer"]:
    return torch.tensor(
        [i for i, w in enumerate(graph.writers) if w.kind == kind], dtype=torch.long
    )
