"""Circuits (edges kept) and edge scores (edges ranked), as values that carry their graph.

Both refuse to be combined with anything of another graph. Files name edges instead of numbering
them, so that they outlive any change of layout, and reading one checks everything it says.
"""

import heapq
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import (
    CircuitFileError,
    GraphError,
    MethodError,
    NewerFileError,
    quoted,
    require_kind,
    shortened,
)
from circuitfind.files import path_of, read_bytes, write_whole
from circuitfind.graph import UNIT_KINDS, Edge, EdgeName, Graph, Reader, Writer, counted
from circuitfind.limits import require
from circuitfind.notebook import Framed
from circuitfind.paths import on_paths
from circuitfind.records import body_of, parse_json
from circuitfind.shape import ModelShape
from circuitfind.stored import EdgeRow, graph_from, masks_from

FORMAT = "circuitfind circuit 1"
FILE = "circuit.json"
"""The circuit's file in a run directory."""


@runtime_checkable
class HasGraph(Protocol):
    """A problem, an engine, a circuit, or anything else that belongs to a graph."""

    @property
    def graph(self) -> Graph: ...


@dataclass(frozen=True)
class Circuit:
    """The edges of a graph that are kept.

    Attributes:
        graph: What the circuit is part of.
        kept: True where an edge is in the circuit.
        effects: The effect that cutting each edge had when it was tested, in the unit of the loss;
            NaN where it was not tested. Positive: cutting the edge made the model worse. Methods
            that estimate effects put their scores here; `origin` names the method.
        origin: Where the circuit comes from: model, task, prompts, metric, ablation, method and
            its options, versions. Plain JSON values.
    """

    graph: Graph
    kept: Bool[Tensor, "writer reader"]
    effects: Float[Tensor, "writer reader"] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_kind(self.graph, Graph, "a graph; give what `heads_and_mlps(model.shape)` returns")
        self.graph.require_mask(self.kept)
        if bool((self.kept & ~self.graph.edge_mask).any()):
            raise GraphError("the mask keeps a pair that is no edge of the graph")

    @classmethod
    def of_edges(cls, of: Graph | HasGraph, edges: Iterable[EdgeName]) -> "Circuit":
        """Return the circuit of some edges, given by name: `m0->a2.h2.v`.

        Args:
            of: A graph, or what has one: a problem, an engine, another circuit.
            edges: The edges.

        Raises:
            GraphError: One of them does not exist.
        """
        graph = of if isinstance(of, Graph) else of.graph
        return cls(graph, graph.mask_of(edges))

    def __repr__(self) -> str:
        about = [
            f"{self.origin[name]}" for name in ("task", "model", "method") if name in self.origin
        ]
        return (
            f"<Circuit of {self.n_edges} of {self.graph.n_edges} edges, {len(self.heads_and_mlps)} "
            f"of {len(self.graph.heads_and_mlps)} {counted(self.graph.n_units)}"
            f"{': ' * bool(about)}{shortened(', '.join(about))[:100]}>"
        )

    @property
    def n_edges(self) -> int:
        return int(self.kept.sum())

    @cached_property
    def edges(self) -> list[Edge]:
        """The kept edges, ordered by reader and then by writer."""
        return self.graph.edges(self.kept)

    @cached_property
    def components(self) -> list[str]:
        """The components that write or read along a kept edge, in the order in which they run."""
        touched = {edge.writer.component for edge in self.edges}
        touched |= {edge.reader.component for edge in self.edges}
        ends: list[Writer | Reader] = [*self.graph.writers, *self.graph.readers]
        names = dict.fromkeys(end.component for end in sorted(ends, key=lambda end: end.stage))
        return [name for name in names if name in touched]

    @property
    def heads_and_mlps(self) -> list[str]:
        """The components that a circuit chooses, in the order in which they run.

        Heads and MLPs, or parts of MLPs, that write or read along a kept edge. The embedding and
        the logits are in every circuit, and key/value heads belong to the heads that share them.
        """
        chosen = {writer.name for writer in self.graph.heads_and_mlps}
        return [name for name in self.components if name in chosen]

    @property
    def n_units(self) -> int:
        """How many neurons and latents are among these."""
        return sum(self.graph.kind_of[name] in UNIT_KINDS for name in self.heads_and_mlps)

    def effect(self, edge: EdgeName) -> float | None:
        """Return the measured effect of an edge or its name, or None if it was never tested.

        Raises:
            GraphError: There is no such edge.
        """
        place = self.graph.index(edge)
        if self.effects is None:
            return None
        value = float(self.effects[place])
        return None if math.isnan(value) else value

    def network(self) -> nx.MultiDiGraph:
        """Return the circuit as a networkx graph (see `Graph.network`), with effects."""
        network = self.graph.network(self.kept)
        for *_, data in network.edges(data=True):
            if data["kind"] == "edge":
                effect = self.effect(data["name"])
                if effect is not None:
                    data["effect"] = effect
        return network

    def connected(self) -> "Circuit":
        """Return the circuit without dead ends: edges that no path from embedding to logits uses.

        Components that nothing reads and components that read nothing go, until none is left.
        Under resample ablation this changes no output: a component that reads nothing of the
        clean run writes what it writes on the corrupted one. Under zero or mean ablation it can.
        """
        return replace(self, kept=on_paths(self.graph, self.kept))

    def without(self, other: "Circuit") -> list[Edge]:
        """Return the edges of this circuit that the other one lacks.

        Raises:
            GraphError: The circuits belong to different graphs.
        """
        require_same_graph(self.graph, other.graph)
        return self.graph.edges(self.kept & ~other.kept)

    def save(self, path: Path | str) -> None:
        """Write the circuit as JSON (`docs/files.md` describes the format).

        Raises:
            CircuitFileError: The file cannot be written.
        """
        try:
            write_whole(Path(path), self.to_json())
        except OSError as error:
            raise CircuitFileError(
                f"cannot write the circuit {path}: {error.strerror or error}"
            ) from None

    def to_json(self) -> str:
        """Return the circuit as JSON text, byte for byte the same for equal circuits."""
        edges = [{"edge": edge.name, "effect": self.effect(edge)} for edge in self.edges]
        content = {**self.header(), "edges": edges}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def header(self) -> dict[str, Any]:
        """Return what a file says of a circuit besides its edges: its graph and its origin."""
        shape = {name: getattr(self.graph.shape, name) for name in ModelShape.__annotations__}
        graph: dict[str, Any] = {
            "split_qkv": self.graph.split_qkv,
            "split_embedding": self.graph.split_embedding,
        }
        if self.graph.places:
            graph["places"] = list(self.graph.places)
        if self.graph.moves:
            graph["moves"] = [list(move) for move in self.graph.moves]
        if self.graph.units:
            graph["units"] = [asdict(units) for units in self.graph.units]
        return {"format": FORMAT, "shape": shape, "graph": graph, "origin": dict(self.origin)}

    def _repr_svg_(self) -> str:
        """Draw the circuit; notebooks call this."""
        from circuitfind.reports.diagram import draw_circuit

        return draw_circuit(self).svg()


def load_circuit(path: Path | str, graph: Graph | None = None) -> Circuit:
    """Read the circuit of a run directory, or of a circuit file.

    Args:
        path: The directory, or a file written by `Circuit.save`.
        graph: The graph that the circuit must belong to; by default the one in the file.

    Raises:
        CircuitFileError: The file is missing, no JSON, cut short, of another format or another
            model's graph, or names an edge that does not exist.
        NewerFileError: A newer version has written it.
    """
    path = path_of(path)
    path = path / FILE if path.is_dir() else path
    try:
        content = parse_json(read_bytes(path))
    except OSError as error:
        raise CircuitFileError(
            f"cannot read the circuit {shortened(str(path))}: {error.strerror}; give a run "
            "directory or a circuit file"
        ) from None
    except ValueError as error:
        raise CircuitFileError(f"{path} is not valid JSON, or was cut short: {error}") from None
    try:
        return circuit_from(content, graph)
    except NewerFileError as error:
        raise NewerFileError(f"{path}: {error}") from None
    except (GraphError, CircuitFileError) as error:
        raise CircuitFileError(f"{path} is not a circuit of this kind: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CircuitFileError(
            f"{path} is not a circuit file: {type(error).__name__} at {error}; "
            "circuit files are written by `circuitfind discover`"
        ) from None


def as_circuit(given: object) -> Circuit:
    """Return a circuit that is given as itself, as a result that has one, or as where it lies.

    Args:
        given: A circuit, what a search found, or the path of a run directory or a circuit file.

    Raises:
        MethodError: It is none of these.
        CircuitFileError: There is no circuit, or its file cannot be trusted.
    """
    if isinstance(given, str | Path):
        return load_circuit(given)
    found = getattr(given, "circuit", given)
    if not isinstance(found, Circuit):
        raise MethodError(
            f"{quoted(given)} is not a circuit; give one that `discover` or `load_circuit` "
            "returned, or a run directory"
        )
    return found


def circuit_from(content: Mapping[str, Any], graph: Graph | None = None) -> Circuit:
    """Return the circuit that the content of a circuit file describes; see `load_circuit`."""
    rows = (EdgeRow(row["edge"], True, row["effect"]) for row in content["edges"])  # noqa: FBT003
    return assembled(content, rows, graph)


def assembled(
    header: Mapping[str, Any], rows: Iterable[EdgeRow], graph: Graph | None = None
) -> Circuit:
    """Return the circuit of some edges and of a header, as `Circuit.header` writes it.

    Raises:
        CircuitFileError: The header or a row is of the wrong kind.
        GraphError: An edge does not exist, or the header's graph is not the given one.
    """
    try:
        body_of(header, FORMAT, "the circuit")
    except ValueError as error:
        raise CircuitFileError(str(error)) from None
    found = graph_from(header)
    if graph is not None:
        require_same_graph(found, graph)
    return Circuit(found, *masks_from(found, rows), dict(header["origin"]))


def require_same_graph(found: Graph, expected: Graph) -> None:
    """Refuse to mix two graphs.

    Raises:
        GraphError: They differ; the message names the first difference.
    """
    for name in ModelShape.__annotations__:
        ours, theirs = getattr(found.shape, name), getattr(expected.shape, name)
        if ours != theirs:
            raise GraphError(f"it belongs to another model: {name} is {ours} and {theirs} here")
    if found != expected:
        if found.places != expected.places:
            ours, theirs = (
                shortened(", ".join(graph.places))[:100] or "no places"
                for graph in (found, expected)
            )
            raise GraphError(f"it tells other places apart: {ours}, and {theirs} here")
        if found.moves != expected.moves:
            ours, theirs = (
                f"{len(graph.moves)} pairs of places" if graph.moves else "no moves"
                for graph in (found, expected)
            )
            raise GraphError(f"it tells other moves inside attention apart: {ours}, {theirs} here")
        if found.units != expected.units:
            ours, theirs = (
                shortened(", ".join(map(str, graph.units)))[:100] or "no units"
                for graph in (found, expected)
            )
            if ours == theirs:
                raise GraphError(f"it has other neurons or latents: of {ours} not the same numbers")
            raise GraphError(f"it has other neurons or latents: {ours}, and {theirs} here")
        raise GraphError("it belongs to a graph with other options (split q/k/v or embedding)")


@dataclass(frozen=True)
class EdgeScores(Framed):
    """A number per edge by which edges are ranked.

    Attributes:
        graph: What is scored.
        values: Positive: the edge helps (cutting it raises the loss). NaN: no score.
        unit: Unit of the values.
        method: What produced them.
    """

    graph: Graph
    values: Float[Tensor, "writer reader"]
    unit: str
    method: str

    def __repr__(self) -> str:
        n_scored = int((self.graph.edge_mask & ~self.values.isnan()).sum())
        return (
            f"<EdgeScores by {shortened(self.method)[:60]}: {n_scored} of {self.graph.n_edges} "
            f"edges, in {shortened(self.unit)[:40] or 'no unit'}>"
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield a row per scored edge, those of the largest size first."""
        for edge, score in self.ranked():
            writer, reader = edge.writer.component, edge.reader.component
            port = edge.port or ""
            yield {
                "edge": edge.name, "writer": writer, "reader": reader, "port": port, "score": score
            }  # fmt: skip

    def ranked(self, *, signed: bool = False) -> list[tuple[Edge, float]]:
        """Return all scored edges, highest first: by size, or by value if `signed`.

        Ties stand in the order of `Graph.edges`, so the ranking is always the same.
        """
        writers, readers = self._ranking(signed=signed)
        values = self.values[writers, readers].tolist()
        edges = [
            Edge(self.graph.writers[writer], self.graph.readers[reader])
            for writer, reader in zip(writers.tolist(), readers.tolist(), strict=True)
        ]
        return list(zip(edges, values, strict=True))

    def _ranking(self, *, signed: bool) -> tuple[Int[Tensor, " edge"], Int[Tensor, " edge"]]:
        """Return the indices of the writers and of the readers of all scored edges, ranked."""
        scored = self.graph.edge_mask & ~self.values.isnan()
        readers, writers = scored.T.nonzero(as_tuple=True)
        values = self.values[writers, readers]
        order = (values if signed else values.abs()).argsort(descending=True, stable=True)
        return writers[order], readers[order]

    def score(self, edge: EdgeName) -> float:
        """Return the score of an edge or its name; NaN where it has none.

        Raises:
            GraphError: There is no such edge.
        """
        return float(self.values[self.graph.index(edge)])

    def top(self, n: int, *, signed: bool = False) -> Circuit:
        """Keep the n highest scores."""
        require(edges=n)
        return self._circuit(*(ends[:n] for ends in self._ranking(signed=signed)))

    def above(self, threshold: float, *, signed: bool = True) -> Circuit:
        """Keep every score of at least the threshold."""
        require(threshold=threshold)
        values = self.values if signed else self.values.abs()
        return Circuit(self.graph, self.graph.edge_mask & (values >= threshold), self.values)

    def greedy(self, n: int, *, signed: bool = False) -> Circuit:
        """Keep n edges by a best-first walk from the logits.

        Only edges into components that the walk has reached are candidates, so no kept edge
        leads nowhere (Hanna et al. 2024, arXiv 2403.17806).
        """
        require(edges=n)
        graph, (writers, readers) = self.graph, self._ranking(signed=signed)
        into: list[list[int]] = [[] for _ in graph.readers]
        for rank, reader in enumerate(readers.tolist()):
            into[reader].append(rank)
        # A rank says which edge it is, and the lowest is the best.
        frontier = [rank for reader in graph.logits for rank in into[reader]]
        heapq.heapify(frontier)
        read, chosen = set(graph.logits), list[int]()
        while frontier and len(chosen) < n:
            chosen.append(heapq.heappop(frontier))
            ends = int(writers[chosen[-1]]), int(readers[chosen[-1]])
            for reader in set(graph.inputs_at(*ends)) - read:
                read.add(reader)
                for rank in into[reader]:
                    heapq.heappush(frontier, rank)
        return self._circuit(writers[chosen], readers[chosen])

    def _circuit(self, writers: Int[Tensor, " edge"], readers: Int[Tensor, " edge"]) -> Circuit:
        kept = torch.zeros_like(self.graph.edge_mask)
        kept[writers, readers] = True
        return Circuit(self.graph, kept, self.values)
