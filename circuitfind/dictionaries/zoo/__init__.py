"""The transcoders that ship with the package, in the format of SAELens: one for each MLP.

Each model has a directory beside this file; `card.json` in it says how its transcoders were trained
and what was measured, and `python -m circuitfind.tasks.train_transcoders OUT MODEL` trains them
again. The model itself need not be embedded: it is known by the fingerprint of its weights.
"""

from pathlib import Path
from typing import Any

from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.loading import load_dictionaries
from circuitfind.errors import DictionaryError, quoted, require_kind
from circuitfind.files import read_text
from circuitfind.models.base import ResidualModel
from circuitfind.models.zoo import TRAINED
from circuitfind.records import parse_json


def embedded_dictionaries(model: ResidualModel) -> tuple[Dictionary, ...]:
    """Return the embedded transcoders of a model, one for each layer.

    Raises:
        DictionaryError: There are none of this model; the message lists those that there are.
        MethodError: It is not a model.
    """
    require_kind(model, ResidualModel, "a model; give what `load_model` returned")
    for name, card in dictionary_cards().items():
        # Weights that are rounded to another type have another fingerprint.
        if card["fingerprint"] == model.fingerprint or name == model.name in TRAINED:
            return load_dictionaries(Path(__file__).parent / name)
    raise DictionaryError(
        f"there are no embedded transcoders of {quoted(model.name)}; there are those of "
        f"{', '.join(dictionary_cards())}; for others, give a directory"
    )


def dictionary_cards() -> dict[str, dict[str, Any]]:
    """Return how each model's transcoders were trained and what was measured, by its name."""
    folder = Path(__file__).parent
    return {path.parent.name: parse_json(read_text(path)) for path in folder.glob("*/card.json")}
