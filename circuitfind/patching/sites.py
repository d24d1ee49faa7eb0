"""The sites that can be patched, with the names that TransformerLens uses.

Every sweep of `transformer_lens.patching` is one of these sites at the right places: those `by_pos`
at each position, those `all_pos` at all positions at once. `GROUPS` names what is often wanted
together, among it what TransformerLens' `every` functions stack. Any other activation that a model
knows by name is a site as well: the model says where it is found.
"""

from dataclasses import dataclass, replace
from typing import Literal

from circuitfind.errors import MethodError, quoted
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import graph_of
from circuitfind.models.hooks import Activation, HookPoints

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
        activation: Where the model has it, if it is patched by its name.
    """

    name: str
    axes: tuple[Axis, ...]
    enters: int
    summary: str
    activation: Activation | None = None

    @property
    def n_places(self) -> int:
        """Number of positions that a patch names: one, or two (source and destination)."""
        return sum("position" in axis for axis in self.axes)

    def index(self, layer: int, at: tuple[int, ...], candidate: int) -> tuple[int, ...]:
        """Return a patch's indices along the axes.

        Args:
            layer: Its block.
            at: The numbers of its places.
            candidate: The number of its head among those that are patched.
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

_KNOWN = ", ".join([*SITE_BY_NAME, *GROUPS])

_ACTIVATIONS = {"head": "z"}
"""What TransformerLens calls a site of the table, where that is something else."""


def site_names(wanted: str, graph: Graph | None = None) -> tuple[str, ...]:
    """Return the names of sites and activations, separated by commas, groups taken apart.

    A group stands for those of its sites that the model has, if its graph is given.

    Raises:
        MethodError: A name is empty, or the model has no such site.
    """
    words = [word.strip() for word in wanted.split(",")]
    if "" in words:
        raise MethodError(f"no site named ''; choose from {_KNOWN}")
    return tuple(dict.fromkeys(name for word in words for name in _named(word, graph)))


def find_sites(wanted: str, model: ResidualModel, *, by_name: bool = False) -> tuple[Site, ...]:
    """Return sites by their names, separated by commas: those of the table in its order first.

    Args:
        wanted: Names of the table, of groups, or of activations of the model.
        model: The model.
        by_name: Whether sites of the table are patched by the name of their activation, too.

    Raises:
        MethodError: There is no such site, or the model has none of it.
    """
    names = site_names(wanted, graph_of(model.shape))
    of_table = [site for site in SITES if site.name in names]
    others = [name for name in names if name not in SITE_BY_NAME]
    if by_name:
        of_table, others = [], [*(site.name for site in of_table), *others]
    return (*of_table, *(_by_name(name, model) for name in others))


def _by_name(name: str, model: ResidualModel) -> Site:
    """Return the site of an activation of the model."""
    hooks: HookPoints | None = getattr(model, "hooks", None)
    if hooks is None and name in SITE_BY_NAME:
        raise MethodError(
            f"a setter needs a TransformerLens model, and {quoted(model.name)} is another kind; "
            "leave it out"
        )
    if hooks is None:
        raise MethodError(
            f"no site named {quoted(name)}; choose from {_KNOWN}: only TransformerLens models have "
            f"names for other activations, and {quoted(model.name)} is another kind"
        )
    activation = hooks.find(_ACTIVATIONS.get(name, name))
    if activation is None:
        raise MethodError(
            f"no site named {quoted(name)}; choose from {_KNOWN}, or an activation of the model: "
            f"{', '.join(hooks.names)}"
        )
    if name in SITE_BY_NAME:
        return replace(SITE_BY_NAME[name], activation=activation)
    axes: tuple[Axis, ...] = ("layer", "position") if activation.by_layer else ("position",)
    if activation.head_axis is not None:
        sizes = {len(block.writers) for block in graph_of(model.shape).attention.values()}
        axes = (*axes, "head" if activation.n_heads in sizes else "kv_head")
    return Site(name, axes, 0, "an activation by its name", activation)


def _named(word: str, graph: Graph | None) -> tuple[str, ...]:
    """Return the sites of a name; of a group of several those that the model has."""
    names = GROUPS.get(word, (word,))
    lacking = {name: reason for name in names if graph and (reason := _lack(graph, name))}
    if len(names) == len(lacking):
        raise MethodError(f"this model has no {names[0]}: {lacking[names[0]]}")
    return tuple(name for name in names if name not in lacking)


def _lack(graph: Graph, name: str) -> str:
    """Return why a model lacks a site, and what to do; "" where every layer has the site."""
    attention, mlps = graph.attention, graph.mlps
    by_head = any("head" in axis for site in SITES if site.name == name for axis in site.axes)
    if by_head and len({(len(b.writers), len(b.exchangeable)) for b in attention.values()}) > 1:
        heads = ", ".join(str(len(block.writers)) for block in attention.values())
        return f"its layers have different numbers of heads ({heads}); choose attn_out"
    if name == "resid_mid" and any(graph.is_parallel(n) or n not in mlps for n in attention):
        return (
            "nothing reads the stream between a block's attention and its end; choose resid_pre "
            "or resid_post"
        )
    if name == "mlp_out" and not mlps:
        return "its blocks have no MLP; leave it out"
    if name == "mlp_out" and len(mlps) < len(attention):
        return "some of its blocks have no MLP; leave it out"
    return ""
