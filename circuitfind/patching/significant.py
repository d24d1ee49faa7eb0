"""Significant components of a sweep.

A head for its output, pattern or query, a key/value head for its key or value, a block's heads or
MLP for what they add. A site of the stream stands for no component, but where its effect changes
from one depth to the next, the components in between did that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from circuitfind.errors import MethodError, quoted
from circuitfind.graph import Block, Graph, Reader
from circuitfind.patching.result import DEFAULT_THRESHOLD, PatchResult, Row
from circuitfind.patching.sites import SITE_BY_NAME

_DEPTH = {"resid_pre": 0, "resid_mid": 1, "resid_post": 2}
"""Depth of a residual stream site within its block; a block is two deep."""


@dataclass(frozen=True)
class Significant:
    """The components that a sweep found to matter.

    Attributes:
        writers: Components whose output mattered, or that do something with an input that did.
        readers: Their inputs that may matter; if no port of a head was swept, all of them.
    """

    writers: frozenset[str]
    readers: frozenset[str]


def significant_components(
    result: PatchResult, graph: Graph, threshold: float = DEFAULT_THRESHOLD
) -> Significant:
    """Return the components at which a patch was significant.

    Raises:
        MethodError: What was patched is no site of the table, so that no component is known for it.
    """
    require_components(result.sites)
    writers, ports = set[str](), set[str]()
    for row in result.significant(threshold):
        if row.site in ("q", "k", "v"):
            head = row.place["head" if row.site == "q" else "kv_head"]
            reader = _port(graph, int(row.place["layer"]), int(head), row.site)
            ports.add(reader.at(None).name)
            writers |= _fed(graph, reader)
        elif row.site not in _DEPTH:
            writers |= set(_written_at(graph, row))
    writers |= set(_between(result, graph, threshold))
    swept = {site for site in ("q", "k", "v") if site in result.values}
    readers = {
        reader.name
        for reader in graph.readers
        if reader.at(None).name in ports
        or (reader.port not in swept and writers & _fed(graph, reader))
    }
    return Significant(frozenset(writers), frozenset(readers))


def require_components(sites: Sequence[str]) -> None:
    """Refuse sites that stand for no components.

    Raises:
        MethodError: One is an activation that was patched by its name.
    """
    if others := [site for site in sites if site not in SITE_BY_NAME]:
        raise MethodError(
            f"no component is known for the activation {quoted(others[0])}, so no circuit can be "
            f"made of it; patch {', '.join(SITE_BY_NAME)}"
        )


def _fed(graph: Graph, reader: Reader) -> set[str]:
    return {writer.component for writer in graph.fed_by(reader)}


def _port(graph: Graph, layer: int, head: int, port: str) -> Reader:
    wanted = port if graph.split_qkv else "qkv"
    return next(
        each
        for each in graph.readers
        if (each.layer, each.index, each.port) == (layer, head, wanted)
    )


def _written_at(graph: Graph, row: Row) -> Iterator[str]:
    layer = int(row.place["layer"])
    if row.site == "mlp_out":
        yield from _written_by(graph, graph.mlps.get(layer))
    elif row.site == "attn_out":
        yield from _written_by(graph, graph.attention[layer])
    else:
        yield from _fed(graph, _port(graph, layer, int(row.place["head"]), "q"))


def _written_by(graph: Graph, block: Block | None) -> Iterator[str]:
    yield from (graph.writers[i].name for i in (block.writers if block else ()))


def _between(result: PatchResult, graph: Graph, threshold: float) -> Iterator[str]:
    """Yield the components between two depths of the stream whose effects differ."""
    by_place: dict[int, dict[int, float]] = {}
    for site, depth in _DEPTH.items():
        for row in result.rows(site) if site in result.values else ():
            layer, place = int(row.place["layer"]), row.indices[1]
            by_place.setdefault(place, {})[2 * layer + depth] = row.effect
    for effects in by_place.values():
        depths = sorted(effects)
        for before, after in zip(depths, depths[1:], strict=False):
            if abs(effects[after] - effects[before]) >= threshold:
                yield from _at_depths(graph, before, after)


def _at_depths(graph: Graph, before: int, after: int) -> Iterator[str]:
    for depth in range(before, after):
        layer, is_mlp = divmod(depth, 2)
        yield from _written_by(graph, (graph.mlps if is_mlp else graph.attention).get(layer))
