"""Circuits as Graphviz DOT with everything in the attributes, for programs that read DOT.

Plain nodes and edges without a layout; `circuitfind draw` makes the picture. Reading takes any DOT
text of simple statements, a node, an edge or an assignment each, as every program writes it.
"""

import json
import re
from collections.abc import Iterator

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError, quoted
from circuitfind.formats.base import HEADER, Format, gathered
from circuitfind.graph import Graph
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
    lines += [f"  {_quoted(component)};" for component in circuit.components]
    for edge in circuit.edges:
        effect = circuit.effect(edge)
        said = {"name": edge.name, "port": edge.reader.port or ""}
        said |= {} if effect is None else {"effect": repr(effect)}
        inner = ", ".join(f"{name}={_quoted(value)}" for name, value in said.items())
        ends = f"{_quoted(edge.writer.component)} -> {_quoted(edge.reader.component)}"
        lines.append(f"  {ends} [{inner}];")
    return "\n".join([*lines, "}\n"])


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
    name = said.get("name", f"{writer}->{reader}.{port}" if port else f"{writer}->{reader}")
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
    while not tokens.sees("}"):
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
