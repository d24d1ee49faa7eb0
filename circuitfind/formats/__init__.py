"""File formats of others: circuits out and in."""

from pathlib import Path

from circuitfind.circuit import Circuit, as_circuit, circuit_from
from circuitfind.errors import CircuitFileError, GraphError, NewerFileError, quoted, shortened
from circuitfind.files import path_of, read_text, write_whole
from circuitfind.formats.acdc import ACDC
from circuitfind.formats.base import Format, as_object
from circuitfind.formats.dot import DOT
from circuitfind.formats.eap_ig import EAP_IG
from circuitfind.formats.networks import GRAPHML, NETWORKX
from circuitfind.formats.tables import CSV
from circuitfind.graph import Graph
from circuitfind.records import parse_json
from circuitfind.registry import Table

_UNREADABLE = (
    LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError,
)  # fmt: skip

OWN = Format(
    "circuitfind",
    ".json",
    "circuitfind's own circuit files",
    Circuit.to_json,
    lambda text, graph: circuit_from(as_object(parse_json(text), "it"), graph),
)

FORMATS: Table[Format] = Table(
    "format", Format, CircuitFileError, (EAP_IG, ACDC, GRAPHML, DOT, NETWORKX, CSV, OWN)
)
"""Every format. A new one is a file and an entry here, or in a package of your own."""


def import_circuit(
    path: Path | str, graph: Graph | None = None, *, format_name: str | None = None
) -> Circuit:
    """Read a circuit from a file of any format.

    Args:
        path: The file.
        graph: The model's graph (`heads_and_mlps(model.shape)`), for files that do not hold it.
        format_name: Its format; by default it is told from the file.

    Raises:
        CircuitFileError: There is no such file or format, or it cannot be trusted.
    """
    chosen = FORMATS.find(format_name) if format_name else None
    path = path_of(path)
    try:
        text = read_text(path)
        return (chosen or recognised(path, text)).read(text, graph)
    except OSError as error:
        raise CircuitFileError(
            f"cannot read the circuit {shortened(str(path))}: {error.strerror}; give a file that "
            "holds a circuit"
        ) from None
    except NewerFileError as error:
        raise NewerFileError(f"{path}: {error}") from None
    except (GraphError, CircuitFileError) as error:
        raise CircuitFileError(f"{path} cannot be read as a circuit: {error}") from None
    except _UNREADABLE as error:
        raise CircuitFileError(
            f"{path} cannot be read as a circuit: {type(error).__name__} at {error}"
        ) from None


def export_circuit(circuit: object, path: Path | str, *, format_name: str | None = None) -> None:
    """Write a circuit to a file of any format.

    Args:
        circuit: The circuit, what a search found, or a run directory or circuit file.
        path: The file.
        format_name: A name of `FORMATS`; by default the first whose files end like this one.

    Raises:
        CircuitFileError: There is no such format, it cannot express the circuit, or the file cannot
            be written.
    """
    chosen = FORMATS.find(format_name) if format_name else _by_ending(path_of(path))
    text = chosen.write(as_circuit(circuit))
    try:
        write_whole(Path(path), text)
    except OSError as error:
        raise CircuitFileError(f"cannot write the circuit {path}: {error.strerror}") from None


def _by_ending(path: Path) -> Format:
    for known in FORMATS:
        if known.suffix == path.suffix:
            return known
    endings = ", ".join(sorted({known.suffix for known in FORMATS}))
    raise CircuitFileError(
        f"the ending of {quoted(path.name)} is not one of {endings}; name the format"
    )


def recognised(path: Path, text: str) -> Format:
    """Return the format of a file, by its ending and, for JSON, by its content.

    Raises:
        CircuitFileError: It is none of the known ones.
        ValueError: It ends in .json and is no JSON.
    """
    if path.suffix != ".json":
        return _by_ending(path)
    content = as_object(parse_json(text), "it")
    marks = {"cfg": EAP_IG, "subgraph": ACDC, "nodes": NETWORKX, "format": OWN}
    for name, known in marks.items():
        if name in content and (known is not OWN or "edges" in content):
            return known
    raise CircuitFileError("it is not one of the JSON formats known here")


__all__ = ["FORMATS", "Format", "export_circuit", "import_circuit"]
