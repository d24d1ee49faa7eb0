"""The positions at which a sweep patches: one at a time, several together, by number or by name."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuitfind.errors import PromptError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import PromptPairs, named_positions

WORDS = ("all", "last", "each", "named")


@dataclass(frozen=True)
class Place:
    """Positions that are patched together, in every prompt its own.

    Attributes:
        name: How tables and heatmaps call it.
        mask: True where a prompt is patched.
    """

    name: str
    mask: Bool[Tensor, "batch pos"]


def default_places(prompts: PromptPairs) -> str:
    """Return which positions are patched unless others are asked for.

    Named positions where several prompts have them, because the same index means something else in
    prompts of another template; otherwise every position in turn.
    """
    return "named" if prompts.positions and len(prompts) > 1 else "each"


def places(
    prompts: PromptPairs, wanted: str, vocabulary: Vocabulary | None = None
) -> tuple[Place, ...]:
    """Return the positions that are patched, one place after another.

    Args:
        prompts: The prompts.
        wanted: `all` (every position at once), `last` (each prompt's last), `each` (every position
            in turn), `named` (every named position in turn), or positions separated by commas,
            each a name or an index from 0.
        vocabulary: Gives labels to positions at which all prompts have the same token.

    Raises:
        PromptError: A position does not exist; the message lists those that do.
    """
    if wanted == "all":
        return (Place("all", prompts.real),)
    if wanted == "each":
        names = _labels(prompts, vocabulary)
        return tuple(_at_index(prompts, index, name) for index, name in enumerate(names))
    if wanted == "named" and not prompts.positions:
        raise PromptError("these prompts name no positions; give indices, or all, last or each")
    words = _in_order(prompts) if wanted == "named" else _words(wanted)
    return tuple(_place(prompts, word) for word in words)


def _in_order(prompts: PromptPairs) -> list[str]:
    """Return the names of positions in the order in which they stand in most texts."""
    where = {name: float(index.double().mean()) for name, index in prompts.positions.items()}
    return sorted(where, key=lambda name: where[name])


def _words(wanted: str) -> list[str]:
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    if not words:
        raise PromptError(f"no position is given; choose {', '.join(WORDS)}, names or indices")
    if repeated := [word for word in words if words.count(word) > 1]:
        raise PromptError(f"the position {repeated[0]!r} is given twice; give it once")
    return words


def _place(prompts: PromptPairs, word: str) -> Place:
    # A task may call a position `last` or `7`; its names go first.
    if word in prompts.positions:
        return _at(prompts, named_positions(prompts, [word])[0], word)
    if word == "all":
        return Place(word, prompts.real)
    if word == "last":
        return _at(prompts, prompts.lengths - 1, word)
    n = prompts.clean.shape[1]
    if word.isdecimal() and int(word) < n:
        return _at_index(prompts, int(word), word)
    names = ", ".join(prompts.positions) or "none"
    raise PromptError(
        f"no position {word!r}; there are all, last, each, the indices 0 to {n - 1}, and the "
        f"named positions: {names}"
    )


def _at(prompts: PromptPairs, index: Int[Tensor, " batch"], name: str) -> Place:
    columns = torch.arange(prompts.clean.shape[1], device=prompts.clean.device)
    return Place(name, columns[None, :] == index[:, None])


def _at_index(prompts: PromptPairs, index: int, name: str) -> Place:
    mask = torch.zeros_like(prompts.real)
    mask[:, index] = prompts.real[:, index]
    return Place(name, mask)


def _labels(prompts: PromptPairs, vocabulary: Vocabulary | None) -> Iterator[str]:
    """Name positions by their index, their names, and the word that all prompts have there."""
    for index in range(prompts.clean.shape[1]):
        names = [name for name, at in prompts.positions.items() if bool((at == index).all())]
        column = prompts.clean[:, index]
        shared = vocabulary is not None and bool((column == column[0]).all())
        word = vocabulary.decode([int(column[0])]).strip() if vocabulary and shared else ""
        yield " ".join(part for part in (str(index), "/".join(names), word) if part)
