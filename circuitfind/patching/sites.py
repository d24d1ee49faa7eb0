"""The sites that can be patched, with the names that TransformerLens uses.

Every sweep of `transformer_lens.patching` is one of these sites at the right places: those `by_pos`
at each position, those `all_pos` at all positions at once. `GROUPS` names what is often wanted
together, among it what TransformerLens' `every` functions stack.
"""

from dataclasses import dataclass
from typing import Literal

from circuitfind.errors import MethodError
from circuitfind.graph import ModelShape

Axis = Literal["layer", "position", "head", "kv_head", "source_position"]


@dataclass(frozen=True)
class Site:
    """A kind of activation.

    Attributes:
        name: What the command line calls it.
        axes: What its single sites differ in, in the order of results.
        enters: Where in a block its patches enter: 0 before the attention, 1 after it, 2 at the
            end. Those that enter at one point run through the model together.
        summary: What is patched, in a phrase.
    """

    name: str
    axes: tuple[Axis, ...]
    enters: int
    summary: str

    @property
    def n_places(self) -> int:
        """Number of positions that a patch names: one, or two (source and destination)."""
        return sum("position" in axis for axis in self.axes)

    def index(self, layer: int, at: tuple[int, ...], candidate: int) -> tuple[int, ...]:
        """Return a patch's indices along the axes.

        Args:
            layer: Its block.
            at: The numbers of its places.
            candidate: The number of its head, where patches differ in that.
        """
        along = dict(zip(("position", "source_position"), at, strict=False))
        numbers = {"layer": layer, "head": candidate, "kv_head": candidate, **along}
        return tuple(numbers[axis] for axis in self.axes)


_STREAM: tuple[Axis, ...] = ("layer", "position")
_HEAD: tuple[Axis, ...] = ("layer", "position", "head")
_KV_HEAD: tuple[Axis, ...] = ("layer", "position", "kv_head")

SITES = (
    Site("resid_pre", _STREAM, 0, "the stream that enters a block"),
    Site("resid_mid", _STREAM, 1, "the stream between a block's attention and its MLP"),
    Site("resid_post", _STREAM, 2, "the stream that leaves a block"),
    Site("attn_out", _STREAM, 1, "what a block's attention adds to the stream"),
    Site("mlp_out", _STREAM, 2, "what a block's MLP adds to the stream"),
    Site("head", _HEAD, 1, "a head's mixed values, and so what it adds to the stream"),
    Site("q", _HEAD, 1, "a head's query"),
    Site("k", _KV_HEAD, 1, "a head's key; with grouped heads that of all heads that share it"),
    Site("v", _KV_HEAD, 1, "a head's value; with grouped heads that of all heads that share it"),
    Site("pattern", _HEAD, 1, "where a head attends to from a position"),
    Site(
        "pattern_cell",
        ("layer", "head", "position", "source_position"),
        1,
        "how much a head attends from one position to another",
    ),
)
"""Every site, in the order of tables."""

SITE_BY_NAME = {site.name: site for site in SITES}

GROUPS = {
    "resid": ("resid_pre",),
    "attn": ("attn_out",),
    "mlp": ("mlp_out",),
    "block": ("resid_pre", "attn_out", "mlp_out"),
    "heads": ("head", "q", "k", "v", "pattern"),
}
"""Short names and groups; the last two are what TransformerLens stacks as `every`."""


def find_sites(wanted: str, shape: ModelShape | None = None) -> tuple[Site, ...]:
    """Return sites by their names, separated by commas, in the order of the table.

    A group stands for those of its sites that the model has.

    Raises:
        MethodError: There is no such site, or the model has none of it.
    """
    names: set[str] = set()
    for word in (word.strip() for word in wanted.split(",")):
        if word not in GROUPS and word not in SITE_BY_NAME:
            known = ", ".join([*SITE_BY_NAME, *GROUPS])
            raise MethodError(f"no site named {word!r}; choose from {known}")
        names |= set(_named(word, shape))
    return tuple(site for site in SITES if site.name in names)


def _named(word: str, shape: ModelShape | None) -> tuple[str, ...]:
    """Return the sites of a name; of a group of several those that the model has."""
    names = GROUPS.get(word, (word,))
    lacking = {name: reason for name in names if shape and (reason := _lack(shape, name))}
    if len(names) == len(lacking):
        raise MethodError(f"this model has no {names[0]}: {lacking[names[0]]}")
    return tuple(name for name in names if name not in lacking)


def _lack(shape: ModelShape, name: str) -> str:
    """Return why a model lacks a site, and what to do; "" where every layer has the site."""
    layers = shape.layers
    by_head = any("head" in axis for site in SITES if site.name == name for axis in site.axes)
    if by_head and len({(layer.n_heads, layer.n_kv_heads) for layer in layers}) > 1:
        return f"its layers have different numbers of heads ({shape.heads_text}); choose attn_out"
    if name == "resid_mid" and any(each.parallel_mlp or not each.has_mlp for each in layers):
        return (
            "nothing reads the stream between a block's attention and its end; choose resid_pre "
            "or resid_post"
        )
    if name == "mlp_out" and not any(layer.has_mlp for layer in layers):
        return "its blocks have no MLP; leave it out"
    if name == "mlp_out" and not all(layer.has_mlp for layer in layers):
        return "some of its blocks have no MLP; leave it out"
    return ""
