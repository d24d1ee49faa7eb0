"""Circuits as tables: CSV, and pandas frames.

A row per edge that is kept or was measured: `edge`, `writer`, `reader`, `port`, `place`, `kept`,
`effect`.
A CSV file says nothing of the model, so reading one needs the graph.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from circuitfind.circuit import Circuit, as_circuit
from circuitfind.errors import CircuitFileError, quoted
from circuitfind.formats.base import HEADER, Format, gathered, kept_names, known_edges
from circuitfind.graph import Graph
from circuitfind.notebook import Framed
from circuitfind.notebook import frame as frame_of
from circuitfind.records import parse_json
from circuitfind.stored import EdgeRow

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("edge", "writer", "reader", "port", "place", "kept", "effect")
_TRUTH = {"true": True, "false": False}


def rows_of(circuit: Circuit) -> Iterator[tuple[str, str, str, str, str, bool, float | None]]:
    """Yield a row, as `COLUMNS` names it, per edge that is kept or was measured."""
    kept = kept_names(circuit)
    for edge in known_edges(circuit):
        writer, reader = edge
        yield (
            edge.name,
            writer.component,
            reader.component,
            edge.port or "",
            reader.place or "",
            edge.name in kept,
            circuit.effect(edge),
        )


def write_csv(circuit: Circuit) -> str:
    """Return a circuit as CSV, with numbers that read back as the same numbers."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    for *names, kept, effect in rows_of(circuit):
        table.writerow([*names, str(kept).lower(), "" if effect is None else repr(effect)])
    return file.getvalue()


def read_csv(text: str, graph: Graph | None = None) -> Circuit:
    """Return the circuit of a CSV file.

    The column `edge` is needed; without `kept` every edge is kept, without `effect` none is known.

    Raises:
        CircuitFileError: It is not such a file, or the graph is not given.
        GraphError: It names an edge that the model does not have.
    """
    try:
        found = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise CircuitFileError(f"it is not CSV: {error}") from None
    return gathered(None, (_row(row) for row in found), graph)


def _row(row: dict[str, str | None]) -> EdgeRow:
    name, kept, effect = row.get("edge"), row.get("kept", "true"), row.get("effect")
    if not name or None in row:
        raise CircuitFileError(f"its columns are not {', '.join(COLUMNS)}")
    if (kept or "").lower() not in _TRUTH:
        raise CircuitFileError(
            f"it says {quoted(kept)} of the edge {quoted(name)}; give true or false"
        )
    try:
        number = float(effect) if effect else None
    except ValueError:
        raise CircuitFileError(
            f"the effect of {quoted(name)} is {quoted(effect)}, no number"
        ) from None
    return EdgeRow(name, _TRUTH[(kept or "").lower()], number)


def to_frame(result: object) -> "pd.DataFrame":
    """Return a circuit or another result as a pandas frame.

    With a circuit, `frame.attrs` holds what it belongs to.

    Args:
        result: A result that is a table, a circuit, or a run directory or circuit file.

    Raises:
        ReportError: pandas is not installed.
    """
    if isinstance(result, Framed):
        return result.to_frame()
    circuit = as_circuit(result)
    frame = frame_of(dict(zip(COLUMNS, row, strict=True)) for row in rows_of(circuit))
    frame = frame.reindex(columns=list(COLUMNS))
    frame["effect"] = frame["effect"].astype("float64")
    frame.attrs[HEADER] = json.dumps(circuit.header(), allow_nan=False)
    return frame


def from_frame(frame: "pd.DataFrame", graph: Graph | None = None) -> Circuit:
    """Return the circuit of a pandas frame.

    Raises:
        CircuitFileError: It lacks a column, or does not say to which model it belongs.
        GraphError: It names an edge that the model does not have.
    """
    if missing := {"edge", "kept", "effect"} - set(frame.columns):
        raise CircuitFileError(f"the frame has no column {quoted(min(missing))}")
    header = frame.attrs.get(HEADER)
    rows = [_from_values(*values) for values in frame[["edge", "kept", "effect"]].values.tolist()]
    return gathered(None if header is None else parse_json(header), rows, graph)


def _from_values(edge: Any, kept: Any, effect: Any) -> EdgeRow:
    return EdgeRow(edge, bool(kept), None if effect is None or effect != effect else effect)


CSV = Format(
    "csv", ".csv", "a table, a row per edge that is kept or was measured", write_csv, read_csv
)
