"""File formats: text from a circuit, and a circuit from text."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from circuitfind.circuit import Circuit, assembled
from circuitfind.errors import CircuitFileError
from circuitfind.graph import NUMBERED_AS, PLACE_MARK, Edge, Graph, Reader, Writer
from circuitfind.stored import EdgeRow, masks_from

HEADER = "circuitfind"
"""The name under which files of others' formats carry our header: the graph and the origin. Other
programs pass over it; with it, a file can be read without the model and loses nothing."""


MOST_LISTED = 5_000_000
"""How many edges a format lists that names every edge of the graph: about 4 GB are needed for as
many."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: What `--format` takes.
        suffix: How its files end.
        summary: What it is for.
        write: Returns the text of a circuit's file.
        read: Returns the circuit of a text; the graph is needed where the text does not hold it,
            and is checked where it does.
    """

    name: str
    suffix: str
    summary: str
    write: Callable[[Circuit], str]
    read: Callable[[str, Graph | None], Circuit]


def known_edges(circuit: Circuit) -> list[Edge]:
    """Return the edges that are kept or have an effect, ordered by reader and then by writer."""
    if circuit.effects is None:
        return circuit.edges
    measured = ~circuit.effects.cpu().isnan() & circuit.graph.edge_mask
    return circuit.graph.edges(circuit.kept.cpu() | measured)


def every_edge(graph: Graph) -> list[Edge]:
    """Return all edges of a graph, for a format that lists them all.

    Raises:
        CircuitFileError: They are too many.
    """
    if graph.n_edges > MOST_LISTED:
        raise CircuitFileError(
            f"this format lists every edge of the graph, at most {MOST_LISTED:,}, and this graph "
            f"has {graph.n_edges:,}; choose a format that lists kept edges only, such as csv"
        )
    return graph.edges()


def kept_names(circuit: Circuit) -> frozenset[str]:
    """Return the names of the kept edges."""
    return frozenset(edge.name for edge in circuit.edges)


def gathered(header: object, rows: Iterable[EdgeRow], graph: Graph | None) -> Circuit:
    """Return the circuit of a file's rows, with the graph of its header or else the given one.

    Raises:
        CircuitFileError: There is neither header nor graph, or they disagree.
        GraphError: An edge does not exist.
    """
    if header is not None:
        return assembled(as_object(header, "its header"), rows, graph)
    known = require_graph(graph)
    return Circuit(known, *masks_from(known, rows))


def require_graph(graph: Graph | None) -> Graph:
    """Refuse to read a file that does not say to which graph its edges belong."""
    if graph is None:
        raise CircuitFileError(
            "it does not say to which model its edges belong; name the model (--model)"
        )
    return graph


def nodes_of(circuit: Circuit) -> dict[str, dict[str, Any]]:
    """Return what is known of the nodes that kept edges touch, in the order in which they run.

    These are the components, or with places the nodes of `Graph.network`.
    """
    graph, found = circuit.graph, dict[str, dict[str, Any]]()
    for edge in circuit.edges:
        ends: tuple[Writer | Reader, ...] = graph.tail_of(edge), edge.reader
        for node, end in zip(graph.nodes_of(edge), ends, strict=True):
            number = NUMBERED_AS.get(end.kind, "head")
            facts: dict[str, Any] = {"stage": end.stage, "layer": end.layer, number: end.index}
            facts["place"] = end.place or edge.reader.place
            found[node] = {name: value for name, value in facts.items() if value is not None}
    # A move may lead from a key/value head that no edge enters.
    every: list[Writer | Reader] = [*graph.merged.writers, *graph.merged.readers]
    names = dict.fromkeys(end.component for end in sorted(every, key=lambda end: end.stage))
    order = {name: number for number, name in enumerate(names)}
    places = {place: number for number, place in enumerate(graph.places)}

    def rank(node: str) -> tuple[int, int, str]:
        component, _, place = node.partition(PLACE_MARK)
        return order[component.removesuffix(".kv")], places.get(place, 0), node

    return {node: found[node] for node in sorted(found, key=rank)}


def edge_name(writer: str, reader: str, port: str | None) -> str:
    """Return the name of the edge between two nodes of a network (`Graph.network`)."""
    component, mark, place = reader.partition(PLACE_MARK)
    ending = f".{port}" if port else ""
    attended, _, source = writer.partition(PLACE_MARK)
    if ".kv" in attended:
        return f"{component}{ending}{PLACE_MARK}{source}->{reader}"
    start = writer.removesuffix(f"{mark}{place}")
    return f"{start}->{component.removesuffix('.kv')}{ending}{mark}{place}"


def refuse_finer(graph: Graph, whose: str) -> None:
    """Refuse a graph that is finer than heads and MLPs for a format that does not know more."""
    finer = {
        ("places", "--places"): graph.places,
        ("neurons", "--neurons"): any(units.kind == "neuron" for units in graph.units),
        ("latents", "--latents"): any(units.kind == "latent" for units in graph.units),
    }
    for (what, option), has in finer.items():
        if has:
            raise CircuitFileError(
                f"{whose} has no {what} and this circuit tells them apart; choose another format, "
                f"such as graphml or csv, or search without {option}"
            )


def as_object(value: object, what: str) -> Mapping[str, Any]:
    """Refuse anything but a JSON object."""
    if not isinstance(value, dict):
        raise CircuitFileError(f"{what} is {type(value).__name__}, not a JSON object")
    return value


def as_list(value: object, what: str) -> list[Any]:
    """Refuse anything but a JSON list."""
    if not isinstance(value, list):
        raise CircuitFileError(f"{what} is {type(value).__name__}, not a JSON list")
    return value
