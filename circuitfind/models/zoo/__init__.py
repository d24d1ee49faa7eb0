"""The models that ship with the package: trained transformers, and some that are wired by hand.

A trained one is a directory beside this file; `card.json` in it says how it was trained and what
was measured, and `python -m circuitfind.tasks.train_zoo OUT NAME` trains it again. A model wired by
hand is a compiled model in `handmade/`; its JSON states its true circuit.
"""

from pathlib import Path
from typing import Any

from circuitfind.errors import ModelError
from circuitfind.files import read_text
from circuitfind.records import parse_json

TRAINED = {
    "gpt-4l": "GPT-2 architecture, 4 layers, 4 heads; does every task of words",
    "gpt-4l-b": "gpt-4l from another seed; does all but induction (94.8 % right)",
    "gpt-2l": "GPT-2 architecture, 2 layers, 4 heads; does every task of words",
    "gpt-2l-b": "gpt-2l from another seed; does every task of words",
    "llama-4l": "Llama architecture, 4 layers, 4 (2 key/value) heads; does every task of words",
    "attn-2l": "attention only, 2 layers, 4 heads; does all but arithmetic and induction",
    "ioi-small": "GPT-2 architecture, 4 layers, 4 heads; does ioi, pronoun and induction",
}
"""One line about each trained model, by name."""

HANDMADE = {
    "reverse": "says its input backwards; 2 layers of a head and an MLP",
    "hist": "says how often each symbol occurs; 1 layer of a head and an MLP",
    "xproportion": "says which share of the symbols so far is x; 2 layers of a head and an MLP",
    "induction-pair": "a previous-token head and an induction head",
    "and-gate": "two heads and an MLP that needs both",
    "or-gate": "two heads and an MLP that needs either",
    "backup-head": "a head, and another that takes over only if the first is silent",
    "two-circuits": "two heads that do the same task, each alone, and share no edge",
}
"""One line about each model wired by hand, by name."""

ZOO = {**TRAINED, **HANDMADE}
"""One line about each embedded model, by name."""


def zoo_path(name: str) -> Path:
    """Return a trained model's directory, or the JSON file of one wired by hand.

    Raises:
        ModelError: There is no such model; the message lists the known ones.
    """
    if name not in ZOO:
        raise ModelError(f"no embedded model is named {name!r}; there are {', '.join(ZOO)}")
    folder = Path(__file__).parent
    return folder / "handmade" / f"{name}.json" if name in HANDMADE else folder / name


def model_card(name: str) -> dict[str, Any]:
    """Return how a model was trained and what was measured, or how it is wired and its truth.

    Raises:
        ModelError: There is no such model.
    """
    path = zoo_path(name)
    card = path / "card.json" if path.is_dir() else path
    facts: dict[str, Any] = parse_json(read_text(card))
    return facts
