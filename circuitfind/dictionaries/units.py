"""Which latents of a dictionary can be writers of a graph, and how these are fed.

The latents of a transcoder read the stream each for itself, and its error is that of the unpatched
runs: an error that followed its own input would do what the transcoder fails to do. With TopK,
which latents are active depends on all of them, so all are fed by one input. The latents of an SAE
of what an MLP or attention writes are fed by the inputs of that MLP, or of all heads, and so is its
error. Those of an SAE of the residual stream are fed by that stream, and all that follows reads
what they, the rest and the error write.
"""

from collections.abc import Sequence
from pathlib import Path

from circuitfind.dictionaries.activations import TopK
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.loading import load_dictionaries
from circuitfind.dictionaries.zoo import embedded_dictionaries
from circuitfind.errors import DictionaryError, quoted, require_kind, shortened
from circuitfind.files import path_of
from circuitfind.granularity import has_part
from circuitfind.graph import Units
from circuitfind.models.activations import READ_BY_MLP
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import graph_of

_POSSIBLE = (
    f"a graph can have transcoders (from {' or '.join(READ_BY_MLP)} to hook_mlp_out) and SAEs of "
    "hook_mlp_out, hook_attn_out, attn.hook_z or the residual stream (hook_resid_pre, "
    "hook_resid_mid, hook_resid_post)"
)

_BEFORE_NORMS = ("attn.hook_z", "attn.hook_out", "mlp.hook_out")
"""What a norm may lie behind before it is added to the stream."""

EMBEDDED = "zoo"
"""Stands for the dictionaries that ship with the package."""


def latents_of(dictionary: Dictionary, numbers: Sequence[int]) -> Units:
    """Return latents of a dictionary as writers of a graph.

    Raises:
        DictionaryError: It is of another site than those that a graph can have.
    """
    site = dictionary.site
    if site.of is None:
        raise DictionaryError(
            f"the dictionary {quoted(dictionary.name)} is of {site}; {_POSSIBLE}, so give others"
        )
    if site.of != "mlp" or site.is_sae:
        return Units(site.layer, "latent", tuple(numbers), error="live", of=site.of)
    apart = not isinstance(dictionary.activation, TopK)
    skip = dictionary.skip is not None
    return Units(site.layer, "latent", tuple(numbers), apart, skip, error="fixed")


def dictionaries_for(
    model: ResidualModel, given: Sequence[Dictionary] | str
) -> tuple[Dictionary, ...]:
    """Return dictionaries, those of a directory, or the embedded ones, one for each block.

    Args:
        model: What they must fit.
        given: The dictionaries, the directory, or `zoo`.

    Raises:
        DictionaryError: There are none, or one cannot be used with this model in a graph.
    """
    found = _found(model, given)
    for each in found:
        _require_usable(model, each)
    if len({each.block for each in found}) < len(found):
        raise DictionaryError(
            "there are several dictionaries of one block: "
            f"{shortened(', '.join(str(each.site) for each in found))}; give one for each MLP, "
            "each attention and each site of the residual stream"
        )
    return tuple(found)


def _found(model: ResidualModel, given: Sequence[Dictionary] | str) -> Sequence[Dictionary]:
    known: object = given
    if isinstance(known, Sequence) and not isinstance(known, str):
        for each in known:
            require_kind(each, Dictionary, "a dictionary; give what `load_dictionaries` returned")
        return known
    if known == EMBEDDED:
        return embedded_dictionaries(model)
    if not isinstance(known, str | Path):
        raise DictionaryError(
            f"{quoted(known)} is no choice of dictionaries; give a directory, {quoted(EMBEDDED)}, "
            "or what `load_dictionaries` returned"
        )
    return load_dictionaries(path_of(known))


def _require_usable(model: ResidualModel, dictionary: Dictionary) -> None:
    site, name, graph = dictionary.site, quoted(dictionary.name), graph_of(model.shape)
    if not has_part(model.shape, site.layer, site.of or "attention"):
        raise DictionaryError(
            f"the dictionary {name} does not fit the model: {quoted(model.name)} has no "
            f"{site.of or 'block'} in layer {site.layer}; give dictionaries that were trained on "
            "this model"
        )
    can_read = site.is_sae or (site.of == "mlp" and site.reads in READ_BY_MLP)
    normed = site.writes in _BEFORE_NORMS and graph.norms_heads and can_read
    if site.of is None or not can_read or normed:
        raise DictionaryError(
            f"the dictionary {name} is of {site}"
            f"{', behind which this model has a norm' * normed}; {_POSSIBLE}, so give others"
        )
    width = graph.shape.d_model
    if site.writes == "attn.hook_z":
        width = len(graph.heads_in(site.layer)) * graph.shape.d_head
    if (dictionary.d_in, dictionary.d_out) != (width, width):
        raise DictionaryError(
            f"the dictionary {name} does not fit the model: it has the widths {dictionary.d_in:,} "
            f"and {dictionary.d_out:,} and {quoted(model.name)} has {width:,} there; give "
            "dictionaries that were trained on this model"
        )
