"""Graphs and edges in files, checked before anything is built from them.

Files come from other people and other programs, or were cut short. Whatever one holds, reading it
ends in a value or in an error that the user can act on: never in a crash, and never in a graph that
fills the memory.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load
from torch import Tensor

from circuitfind.errors import CircuitFileError, quoted
from circuitfind.files import read_bytes
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph, Moves, Units
from circuitfind.records import from_json
from circuitfind.shape import ModelShape

MOST_TENSOR_BYTES = 1 << 32
"""The largest file of tensors that is read as a whole: 4 GiB."""


class EdgeRow(NamedTuple):
    """One edge of a file: its name, whether it is kept, and its effect where known."""

    name: str
    kept: bool
    effect: float | None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        SafetensorError: It is not such a file, or was cut short.
    """
    tensors: dict[str, Tensor] = load(read_bytes(path, most=MOST_TENSOR_BYTES))
    return tensors


def graph_from(header: Mapping[str, Any]) -> Graph:
    """Return the graph that the header of a circuit file describes.

    Raises:
        CircuitFileError: A size is missing, or of the wrong kind.
        GraphError: The sizes do not fit together, or the graph is larger than any model's.
        KeyError: There is no shape or no graph.
    """
    try:
        shape = from_json(ModelShape, header["shape"], "its shape")
        options = from_json(_Options, header["graph"], "its graph")
    except ValueError as error:
        raise CircuitFileError(str(error)) from None
    graph = heads_and_mlps(
        shape,
        merge_qkv=not options.split_qkv,
        split_embedding=options.split_embedding,
        units=options.units,
    )
    graph = graph.at_places(options.places) if options.places else graph
    return graph.crossing(options.moves) if options.moves else graph


@dataclass(frozen=True)
class _Options:
    """Options of the graph, as a circuit file states them."""

    split_qkv: bool = True
    split_embedding: bool = False
    places: tuple[str, ...] = ()
    moves: Moves = ()
    units: tuple[Units, ...] = ()


def masks_from(
    graph: Graph, rows: Iterable[EdgeRow]
) -> tuple[Bool[Tensor, "writer reader"], Float[Tensor, "writer reader"]]:
    """Return which edges some rows keep, and their effects: NaN where a row has none.

    Raises:
        CircuitFileError: A row is of the wrong kind, or an edge occurs twice.
        GraphError: There is no such edge.
    """
    kept = torch.zeros_like(graph.edge_mask)
    effects = torch.full(kept.shape, torch.nan, dtype=torch.float64)
    seen = set[str]()
    for name, is_kept, effect in rows:
        if not isinstance(name, str) or not isinstance(is_kept, bool):
            raise CircuitFileError(f"it says {quoted(is_kept)} of the edge {quoted(name)}")
        edge = graph.edge(name)
        if edge.name in seen:
            raise CircuitFileError(f"it names the edge {quoted(name)} twice")
        seen.add(edge.name)
        place = graph.index(edge)
        kept[place] = is_kept
        effects[place] = _number(name, effect)
    return kept, effects


def _number(name: str, effect: object) -> float:
    if effect is None:
        return math.nan
    if isinstance(effect, bool) or not isinstance(effect, int | float):
        raise CircuitFileError(
            f"the effect of {quoted(name)} is {quoted(effect)}, which is not a number"
        )
    try:
        number = float(effect)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise CircuitFileError(f"the effect of {quoted(name)} is not finite")
    return number
