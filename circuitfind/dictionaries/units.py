"""Which latents of a dictionary can be writers of a graph, and how these are fed.

The latents of a transcoder read the stream each for itself, and its error is that of the unpatched
runs: an error that followed its own input would do what the transcoder fails to do. With TopK,
which latents are active depends on all of them, so all are fed by one input. The latents of an SAE
of what an MLP writes are fed by the input of that MLP, as neurons are, and so is its error.
"""

from collections.abc import Sequence
from pathlib import Path

from circuitfind.dictionaries.activations import TopK
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.loading import load_dictionaries
from circuitfind.dictionaries.zoo import embedded_dictionaries
from circuitfind.errors import DictionaryError, quoted, require_kind, shortened
from circuitfind.files import path_of
from circuitfind.graph import Units
from circuitfind.models.activations import READ_BY_MLP
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import graph_of

EMBEDDED = "zoo"
"""Stands for the dictionaries that ship with the package."""


def latents_of(dictionary: Dictionary, numbers: Sequence[int]) -> Units:
    """Return latents of a dictionary as writers of a graph.

    Raises:
        DictionaryError: It is of another site than those that a graph can have.
    """
    site = dictionary.site
    if site.is_sae:
        return Units(site.layer, "latent", tuple(numbers), error="live")
    apart = not isinstance(dictionary.activation, TopK)
    skip = dictionary.skip is not None
    return Units(site.layer, "latent", tuple(numbers), apart, skip, error="fixed")


def dictionaries_for(
    model: ResidualModel, given: Sequence[Dictionary] | str
) -> dict[int, Dictionary]:
    """Return dictionaries, those of a directory, or the embedded ones, by layer.

    Args:
        model: What they must fit.
        given: The dictionaries, the directory, or `zoo`.

    Raises:
        DictionaryError: There are none, or one cannot be used with this model in a graph.
    """
    found = _found(model, given)
    for each in found:
        _require_usable(model, each)
    by_layer = {each.site.layer: each for each in found}
    if len(by_layer) < len(found):
        raise DictionaryError(
            "there are several dictionaries of one layer: "
            f"{shortened(', '.join(str(each.site) for each in found))}; give one for each layer"
        )
    return by_layer


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
    if site.layer not in graph.mlps:
        raise DictionaryError(
            f"the dictionary {name} does not fit the model: {quoted(model.name)} has no MLP in "
            f"layer {site.layer}; give dictionaries that were trained on this model"
        )
    # A norm may lie between what an MLP computes and what it adds to the stream.
    normed = any(block.coupled for block in graph.blocks)
    writes = ("hook_mlp_out",) if normed else ("hook_mlp_out", "mlp.hook_out")
    if site.writes not in writes or not (site.is_sae or site.reads in READ_BY_MLP):
        raise DictionaryError(
            f"the dictionary {name} is of {site}, and a graph can have transcoders (from "
            f"{' or '.join(READ_BY_MLP)} to {' or '.join(writes)}) and SAEs of "
            f"{' or '.join(writes)}; give others"
        )
    width = graph.shape.d_model
    if dictionary.d_out != width or dictionary.d_in != width:
        raise DictionaryError(
            f"the dictionary {name} does not fit the model: it has the widths {dictionary.d_in:,} "
            f"and {dictionary.d_out:,} and the stream of {quoted(model.name)} has "
            f"{width:,}; give dictionaries that were trained on this model"
        )
