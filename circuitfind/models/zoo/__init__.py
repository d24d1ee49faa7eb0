"""The models that ship with the package: small transformers, trained, with tokenizer and card.

Each is a Hugging Face directory beside this file. `card.json` in it says how it was trained and
what was measured; `python -m circuitfind.tasks.train_zoo OUT NAME` trains it again.
"""

import json
from pathlib import Path
from typing import Any

from circuitfind.errors import ModelError

ZOO = {
    "ioi-small": "GPT-2 architecture, 4 layers, 4 heads; does ioi, pronoun and induction",
}
"""What each model is, by name."""


def zoo_path(name: str) -> Path:
    """Return the directory of a model that ships with the package.

    Raises:
        ModelError: There is no such model; the message lists the known ones.
    """
    if name not in ZOO:
        raise ModelError(f"no embedded model is named {name!r}; there are {', '.join(ZOO)}")
    return Path(__file__).parent / name


def model_card(name: str) -> dict[str, Any]:
    """Return a model's card: how it was trained, and what was measured.

    Raises:
        ModelError: There is no such model.
    """
    card: dict[str, Any] = json.loads((zoo_path(name) / "card.json").read_text(encoding="utf-8"))
    return card
