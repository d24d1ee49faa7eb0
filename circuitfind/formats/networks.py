"""Circuits as networkx graphs, GraphML files and node-link JSON.

A node per component that a kept edge touches, with its `stage`, and where it has them its `layer`
and the number of the `head`, `neuron` or `latent`; an edge per kept edge, with its `name`, `port`
and, where it is known, `effect`. With places there is a node per component and place, named as in
`Graph.network`, and nodes and edges have a `place`. The graph carries our header, so that the
circuit can be read back.
"""

import io
import json
import warnings
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx

from circuitfind.circuit import Circuit, as_circuit
from circuitfind.errors import CircuitFileError
from circuitfind.formats.base import HEADER, Format, as_object, edge_name, gathered, nodes_of
from circuitfind.graph import Graph
from circuitfind.records import parse_json
from circuitfind.stored import EdgeRow


def to_networkx(circuit: object) -> nx.MultiDiGraph:
    """Return a circuit as a networkx graph whose attributes are plain numbers and texts.

    `Circuit.network` is the view for questions about paths; this one is for exchange.

    Args:
        circuit: The circuit, what a search found, or a run directory or circuit file.
    """
    circuit = as_circuit(circuit)
    network = nx.MultiDiGraph(**{HEADER: json.dumps(circuit.header(), allow_nan=False)})
    graph = circuit.graph
    for node, facts in nodes_of(circuit).items():
        network.add_node(node, **facts)
    for edge in circuit.edges:
        effect, place = circuit.effect(edge), edge.reader.place
        data: dict[str, Any] = {"name": edge.name, "port": edge.port or ""}
        data |= {} if place is None else {"place": place}
        data |= {} if effect is None else {"effect": effect}
        network.add_edge(*graph.nodes_of(edge), key=edge.name, **data)
    return network


def from_networkx(network: nx.Graph, graph: Graph | None = None) -> Circuit:
    """Return the circuit of a networkx graph, made here or elsewhere.

    Edges are taken by their `name`; where there is none, by the names of their nodes and `port`.

    Args:
        network: The graph.
        graph: The model's graph, for networks without our header.

    Raises:
        CircuitFileError: It does not say to which model it belongs, or is of another kind.
        GraphError: It has an edge that the model does not have.
    """
    header = network.graph.get(HEADER)
    found = None if header is None else parse_json(header)
    return gathered(found, _rows(network), graph)


def _rows(network: nx.Graph) -> Iterator[EdgeRow]:
    for writer, reader, data in network.edges(data=True):
        port = data.get("port")
        name = data.get("name") or edge_name(writer, reader, port)
        yield EdgeRow(name, True, data.get("effect"))  # noqa: FBT003


def write_graphml(circuit: Circuit) -> str:
    """Return a circuit as GraphML."""
    file = io.BytesIO()
    nx.write_graphml_xml(to_networkx(circuit), file, named_key_ids=True)
    return file.getvalue().decode() + "\n"


def read_graphml(text: str, graph: Graph | None = None) -> Circuit:
    """Return the circuit of a GraphML file.

    Raises:
        CircuitFileError: It is not GraphML, or not of a circuit.
        GraphError: It has an edge that the model does not have.
    """
    if "<!DOCTYPE" in text:
        # GraphML needs no document type, and entities can blow a small file up.
        raise CircuitFileError("it has a document type, which GraphML files do without")
    try:
        with warnings.catch_warnings():
            # Of files that do not say what their attributes are; the values tell.
            warnings.simplefilter("ignore")
            network = nx.read_graphml(io.BytesIO(text.encode()), force_multigraph=True)
    except (ParseError, nx.NetworkXException, IndexError) as error:
        raise CircuitFileError(f"it is not GraphML: {error}") from None
    return from_networkx(network, graph)


def write_node_link(circuit: Circuit) -> str:
    """Return a circuit as networkx's node-link JSON."""
    return json.dumps(nx.node_link_data(to_networkx(circuit), edges="edges"), indent=1) + "\n"


def read_node_link(text: str, graph: Graph | None = None) -> Circuit:
    """Return the circuit of a node-link JSON file.

    Raises:
        CircuitFileError: It is not such a file.
        GraphError: It has an edge that the model does not have.
    """
    content = as_object(parse_json(text), "it")
    try:
        network = nx.node_link_graph(content, edges="edges" if "edges" in content else "links")
    except nx.NetworkXException as error:
        raise CircuitFileError(f"it is not a graph: {error}") from None
    return from_networkx(network, graph)


GRAPHML = Format(
    "graphml", ".graphml", "GraphML, as Gephi, yEd and igraph read it", write_graphml, read_graphml
)
NETWORKX = Format("networkx", ".json", "networkx's node-link JSON", write_node_link, read_node_link)
