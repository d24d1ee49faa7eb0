"""What prompts differ in: length, wording, template, order and positions, answer, last token.

Prompts are of one wording if they have as many tokens and more than half of these are the same,
each at its place, or if others in between are like both. The name of a wording is what all of its
prompts share.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby

import numpy as np
import torch
from jaxtyping import Int

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import NO_TOKEN, PromptPairs

GAP = "_"
"""Stands for tokens in which the prompts of one wording differ."""


def attributes_of(
    prompts: PromptPairs, vocabulary: Vocabulary | None
) -> Mapping[str, Sequence[str]]:
    """Return what prompts differ in, by name: a text for each prompt.

    Left out are those with one value, or more values than half the number of prompts, and those
    that group the prompts as an earlier one does.
    """
    own = prompts.rows(range(0, len(prompts), prompts.n_runs)).to("cpu")
    found = {"length": list(map(str, own.lengths.tolist())), "wording": _wordings(own, vocabulary)}
    if own.template is not None:
        found["template"] = list(map(str, own.template.tolist()))
    if len(own.positions) > 1:
        found["order"] = _orders(own)
    for name, places in own.positions.items():
        found[f"position of {name}"] = list(map(str, places.tolist()))
    if own.answers.numel():
        found["answer"] = _tokens(own.answers[:, 0, 0].tolist(), vocabulary)
    rows, last = torch.arange(len(own)), own.steps[:, 0]
    found["last token"] = _tokens(own.clean[rows, last].tolist(), vocabulary)
    grouped = {tuple(map(values.index, values)): name for name, values in reversed(found.items())}
    return {
        name: found[name]
        for name in found
        if name in grouped.values() and 1 < len(set(found[name])) <= len(own) / 2
    }


def text_of(prompts: PromptPairs, number: int, vocabulary: Vocabulary | None) -> str:
    """Return the clean prompt of a pair, as text or as token ids."""
    row = number * prompts.n_runs
    return _text(prompts.clean[row, : int(prompts.lengths[row])].tolist(), vocabulary)


def _orders(prompts: PromptPairs) -> list[str]:
    names = list(prompts.positions)
    places = torch.stack(list(prompts.positions.values()), dim=1).tolist()
    return [
        " ".join(name for _, name in sorted(zip(row, names, strict=True), key=lambda each: each[0]))
        for row in places
    ]


def _wordings(prompts: PromptPairs, vocabulary: Vocabulary | None) -> list[str]:
    numbers = wording_numbers(prompts)
    names = dict[int, str]()
    for number in np.unique(numbers).tolist():
        rows = prompts.clean[torch.from_numpy(numbers == number)]
        length = int(prompts.lengths[int((numbers == number).argmax())])
        shared = (rows == rows[0]).all(0).tolist()
        tokens = [t if same else NO_TOKEN for t, same in zip(rows[0].tolist(), shared, strict=True)]
        names[number] = _text(tokens[:length], vocabulary)
    return _distinct(numbers.tolist(), names)


def _tokens(tokens: Sequence[int], vocabulary: Vocabulary | None) -> list[str]:
    names = {
        token: _text([token], vocabulary) if vocabulary is None or token == NO_TOKEN
        else vocabulary.shown(token)
        for token in sorted({*tokens})
    }  # fmt: skip
    return _distinct(tokens, names)


def _distinct(numbers: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """Return the name of each number; where several have one name, all but the first are counted.

    Wordings that share no token look alike, and parts of a character do.
    """
    found, taken = dict[int, str](), set[str]()
    for number, name in names.items():
        own = next(each for each in _counted(name) if each not in taken)
        taken.add(own)
        found[number] = own
    return [found[number] for number in numbers]


def _counted(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({n})" for n in count(2))


def wording_numbers(prompts: PromptPairs) -> Int[np.ndarray, " prompt"]:
    """Return the number of each prompt's wording."""
    from scipy.sparse.csgraph import connected_components

    tokens, lengths = prompts.clean.cpu().numpy(), prompts.lengths.cpu().numpy()
    real = prompts.real.cpu().numpy()
    same = np.stack([((tokens == row) & real).sum(1) for row in tokens])
    alike = (2 * same > lengths) & (lengths[:, None] == lengths)
    numbers: Int[np.ndarray, " prompt"] = connected_components(alike, directed=False)[1]
    return numbers


def _text(tokens: Sequence[int], vocabulary: Vocabulary | None) -> str:
    """Return tokens as text, or as their ids, with a mark for each gap."""
    parts = []
    for is_gap, some in groupby(tokens, lambda token: token == NO_TOKEN):
        run = list(some)
        if is_gap:
            parts += [GAP] * len(run)
        elif vocabulary is None:
            parts += map(str, run)
        else:
            parts.append(vocabulary.decode(run).strip())
    return " ".join(parts)
