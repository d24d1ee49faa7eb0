"""Circuits as Graphviz DOT with everything in the attributes, for programs that read DOT.

Plain nodes and edges without a layout; `circuitfind draw` makes the picture. The nodes of a place
are a cluster, and so are the units of an MLP. Reading takes any DOT text of simple statements, a
node, an edge or an assignment each, as every program writes it, also in subgraphs.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError, quoted
from circuitfind.formats.base import HEADER, Format, edge_name, gathered, nodes_of
from circuitfind.graph import PLACE_MARK, Graph
from circuitfind.records import parse_json
from circuitfind.stored import EdgeRow

_TOKEN = re.compile(
    r'\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<arrow>->)'
    r"|(?P<sign>[\[\]{}=;,:])|(?P<word>[\w.+-]+?(?=->|[^\w.+-]|$))",
    re.S,
)


def write(circuit: Circuit) -> str:
    """Return a circuit as DOT."""
    header = json.dumps(circuit.header(), allow_nan=False)
    lines = ["digraph circuit {", f"  {HEADER}={_quoted(header)};"]
    nodes = nodes_of(circuit)
    if not circuit.graph.places:
        lines += _indented(_listed(circuit.graph, nodes, "cluster"))
    for number, place in enumerate(circuit.graph.places):
        here = [node for node, facts in nodes.items() if facts["place"] == place]
        cluster = f"cluster_{number}"
        lines += _indented(_cluster(cluster, place, _listed(circuit.graph, here, cluster)))
    for edge in circuit.edges:
        effect = circuit.effect(edge)
        said = {"name": edge.name, "port": edge.port or ""}
        said |= {} if edge.reader.place is None else {"place": edge.reader.place}
        said |= {} if effect is None else {"effect": repr(effect)}
        inner = ", ".join(f"{name}={_quoted(value)}" for name, value in said.items())
        ends = " -> ".join(map(_quoted, circuit.graph.nodes_of(edge)))
        lines.append(f"  {ends} [{inner}];")
    return "\n".join([*lines, "}\n"])


def _listed(graph: Graph, nodes: Iterable[str], cluster: str) -> list[str]:
    """Return the statements of the nodes of a cluster, in which the units of an MLP are another."""
    lines, inside = list[str](), defaultdict[str, list[str]](list)
    for node in nodes:
        block = graph.block_of.get(node.partition(PLACE_MARK)[0])
        mlp = block.name if block is not None and block.units is not None else None
        (lines if mlp is None else inside[mlp]).append(f"{_quoted(node)};")
    for mlp, its in inside.items():
        lines += _cluster(f"{cluster}_{mlp}", mlp, its)
    return lines


def _cluster(name: str, label: str, lines: Iterable[str]) -> list[str]:
    return [f"subgraph {name} {{", *_indented([f"label={_quoted(label)};", *lines]), "}"]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _quoted(text: str) -> str:
    # A backslash before a quote would end the text for Graphviz, whose only escape is \".
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.S) if text.startswith('"') else text


def read(text: str, graph: Graph | None = None) -> Circuit:
    """Return the circuit of a DOT file.

    Raises:
        CircuitFileError: It is not simple DOT, or not of a circuit.
        GraphError: It has an edge that the model does not have.
    """
    header, rows = None, list[EdgeRow]()
    for names, said in _statements(_Tokens(text)):
        if len(names) == 1 and HEADER in said:
            header = parse_json(said[HEADER])
        for writer, reader in zip(names, names[1:], strict=False):
            rows.append(_row(writer, reader, said))
    return gathered(header, rows, graph)


def _row(writer: str, reader: str, said: dict[str, str]) -> EdgeRow:
    port, effect = said.get("port"), said.get("effect")
    name = said.get("name") or edge_name(writer, reader, port)
    try:
        return EdgeRow(name, True, float(effect) if effect else None)  # noqa: FBT003
    except ValueError:
        raise CircuitFileError(
            f"the effect of {quoted(name)} is {quoted(effect)}, no number"
        ) from None


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or found.end() == place:
            raise CircuitFileError(
                f"it is not simple DOT: nothing begins with {quoted(text[place])}"
            )
        place = found.end()
        if found.lastgroup:
            yield found[0]


class _Tokens:
    """The tokens of a text, one after the other; an empty one at the end."""

    def __init__(self, text: str) -> None:
        self._tokens, self._place = list(_tokens(text)), 0

    def sees(self, *signs: str) -> bool:
        return self._place < len(self._tokens) and self._tokens[self._place] in signs

    def take(self) -> str:
        if self._place == len(self._tokens):
            raise CircuitFileError("it is not simple DOT: it ends too early")
        self._place += 1
        return self._tokens[self._place - 1]

    def expect(self, sign: str) -> None:
        if (found := self.take()) != sign:
            raise CircuitFileError(
                f"it is not simple DOT: {quoted(found)} stands where {quoted(sign)} must"
            )


def _statements(tokens: _Tokens) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield what each statement names, and the attributes that it gives."""
    tokens.expect("digraph")
    if not tokens.sees("{"):
        tokens.take()
    tokens.expect("{")
    depth = 1
    while depth:
        if tokens.sees("subgraph", "{", "}"):
            depth += _step(tokens)
            continue
        names = [_unquoted(tokens.take())]
        if tokens.sees("="):
            tokens.take()
            yield names, {names[0]: _unquoted(tokens.take())}
        else:
            while tokens.sees("->"):
                tokens.take()
                names.append(_unquoted(tokens.take()))
            yield names, _attributes(tokens) if tokens.sees("[") else {}
        while tokens.sees(";", ","):
            tokens.take()


def _step(tokens: _Tokens) -> int:
    """Enter a subgraph or leave a graph, and return by how much deeper this is."""
    if tokens.sees("}"):
        tokens.take()
        return -1
    if tokens.sees("subgraph"):
        tokens.take()
        if not tokens.sees("{"):
            tokens.take()
    tokens.expect("{")
    return 1


def _attributes(tokens: _Tokens) -> dict[str, str]:
    said = {}
    tokens.expect("[")
    while not tokens.sees("]"):
        name = _unquoted(tokens.take())
        tokens.expect("=")
        said[name] = _unquoted(tokens.take())
        while tokens.sees(";", ","):
            tokens.take()
    tokens.expect("]")
    return said


DOT = Format("dot", ".dot", "Graphviz DOT, without a layout", write, read)
