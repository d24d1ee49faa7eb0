"""Compiled programs: random inputs, and what the program says at every position.

The clean prompt is a random input as long as the program reads, and the corrupted one another.
There are no answers: the program itself is right, and the metric is the distance to its outputs.
If the program says the same on all inputs as long as that, inputs are of random lengths: what it
says may depend on the length, or on the symbols of shorter inputs only.

The tasks named after embedded models are the same, each for the model of its name. The gates know
another pair, `both`: all inputs 1, and all 0 when corrupted. The induction pair knows inputs whose
last symbol occurred once before, `once`, with names for the positions that count. The corrupted
inputs of `two-circuits` begin with -, for which that model says almost nothing, and the metric is
the divergence of probabilities: one of its circuits says the same as both with half of their
logits.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitfind.errors import TaskError
from circuitfind.models.symbols import SymbolVocabulary
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task
from circuitfind.tasks.writing import require_room

_LONG = 40
"""Symbols; there are more inputs of this length than anybody asks for."""

_TRIED = 64
"""On how many inputs of each length a program is tried, at most."""

_MOST_OUTPUTS = 2**22
"""Number of outputs that are computed at a time to try a program."""

_DIFFERENT = 1e-4
"""Outputs are different if they are at least this far apart, relative to the largest above 1."""


def _write(vocabulary: Vocabulary, n: int, seed: int) -> Sequence[Pair]:
    assert isinstance(vocabulary, SymbolVocabulary)  # `written_in` below
    symbols = sorted(vocabulary.symbols.values())
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    length = vocabulary.n_positions - len(start)
    if len(symbols) < 2 or length < 1:
        raise TaskError(
            f"the program has {len(symbols)} input symbols and reads {length} of them; random "
            "inputs need at least 2 symbols and 1 position"
        )
    inputs = len(symbols) ** min(length, _LONG)
    require_room("program", n, inputs * (inputs - 1))
    lengths = _lengths(vocabulary, symbols, start, length)
    generator = random.Random(seed)
    return [_pair(generator, symbols, start, lengths) for _ in range(n)]


def _lengths(
    vocabulary: SymbolVocabulary, symbols: Sequence[int], start: Sequence[int], longest: int
) -> Sequence[int]:
    """Return how many symbols inputs have: the most, or any number if that shows no difference.

    Raises:
        TaskError: The program says the same whatever it is given.
    """
    if vocabulary.outputs_on is None:
        return (longest,)
    # What is said on any two inputs is compared at the positions that both have.
    said = _said(vocabulary, symbols, start, longest)
    if _differs(said, said[:1]):
        return (longest,)
    for length in range(1, longest):
        shorter = _said(vocabulary, symbols, start, length)
        if _differs(shorter, said[:1, : shorter.shape[1]]):
            return range(1, longest + 1)
    raise TaskError(
        f"the program says the same on {len(said)} random inputs of every length, so no input "
        "shows what its parts do; to find what makes a constant, write two inputs into a task "
        "file and choose --ablation zero"
    )


def _said(
    vocabulary: SymbolVocabulary, symbols: Sequence[int], start: Sequence[int], length: int
) -> Float[Tensor, "batch pos output"]:
    """Return what the program says on random inputs of a length, the first position left out."""
    assert vocabulary.outputs_on is not None
    generator = random.Random(0)
    size = (len(start) + length) * max(1, len(vocabulary.outputs))
    n = max(2, min(_TRIED, _MOST_OUTPUTS // size))
    inputs = [[*start, *generator.choices(symbols, k=length)] for _ in range(n)]
    with torch.no_grad():
        return vocabulary.outputs_on(torch.tensor(inputs))[:, len(start) :].cpu()


def _differs(said: Float[Tensor, "batch pos output"], other: Tensor) -> bool:
    scale = max(1.0, float(other.abs().max()))
    return bool(((said - other).abs() > _DIFFERENT * scale).any())


def _pair(
    generator: random.Random, symbols: Sequence[int], start: Sequence[int], lengths: Sequence[int]
) -> Pair:
    # A single length draws nothing, so that the inputs of a seed stay what they were.
    length = lengths[0] if len(lengths) == 1 else generator.choice(lengths)
    clean = generator.choices(symbols, k=length)
    corrupted = clean
    while corrupted == clean:
        corrupted = generator.choices(symbols, k=length)
    steps = range(len(start), len(start) + length)
    return Pair([*start, *clean], [*start, *corrupted], [()] * length, steps=steps)


def _write_both(vocabulary: Vocabulary, n: int, seed: int) -> Sequence[Pair]:
    """Write n times the pair of a gate whose inputs are all 1, and all 0 when corrupted."""
    assert isinstance(vocabulary, SymbolVocabulary)  # `written_in` below
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    if not {"0", "1"} <= set(vocabulary.symbols):
        raise TaskError(
            "a gate reads the symbols 0 and 1 and this program reads "
            f"{', '.join(vocabulary.symbols)}; choose the task 'program'"
        )
    require_room("both", n, 1)
    length = vocabulary.n_positions - len(start)
    on, off = ([*start, *[vocabulary.symbols[symbol]] * length] for symbol in "10")
    steps = range(len(start), len(start) + length)
    return [Pair(on, off, [()] * length, steps=steps)] * n


def _write_once(vocabulary: Vocabulary, n: int, seed: int) -> Sequence[Pair]:
    """Write inputs that end in a symbol that occurred once before.

    Symbols form two pairs. One symbol of the first pair stands at `first` and at `end`, those of
    the second everywhere else, also at `next`. When corrupted, each symbol becomes the other one of
    its pair: there too the end has one match, of another symbol at the same position.
    """
    assert isinstance(vocabulary, SymbolVocabulary)  # `written_in` below
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    length = vocabulary.n_positions - len(start)
    symbols = sorted(vocabulary.symbols.values())
    if len(symbols) < 4 or length < 3:
        raise TaskError(
            f"the program has {len(symbols)} input symbols and reads {length} of them; inputs with "
            "a symbol that occurs once before the end need at least 4 symbols and 3 positions"
        )
    require_room("once", n, (length - 2) * 2 ** (length - 2) * 24)
    generator = random.Random(seed)
    return [_once(generator, symbols, start, length) for _ in range(n)]


def _once(
    generator: random.Random, symbols: Sequence[int], start: Sequence[int], length: int
) -> Pair:
    repeated, other, *rest = generator.sample(symbols, 4)
    swapped = {repeated: other, rest[0]: rest[1], rest[1]: rest[0]}
    first = generator.randrange(length - 2)
    clean = generator.choices(rest, k=length)
    clean[first] = clean[-1] = repeated
    positions = {"first": first, "next": first + 1, "end": length - 1}
    return Pair(
        [*start, *clean],
        [*start, *(swapped[symbol] for symbol in clean)],
        [()],
        steps=[len(start) + length - 1],
        positions={name: len(start) + index for name, index in positions.items()},
    )


def _write_silenced(vocabulary: Vocabulary, n: int, seed: int) -> Sequence[Pair]:
    """Write inputs that begin with any symbol but -, and when corrupted with that one."""
    assert isinstance(vocabulary, SymbolVocabulary)  # `written_in` below
    start = [] if vocabulary.bos is None else [vocabulary.bos]
    length, silence = vocabulary.n_positions - len(start), vocabulary.symbols.get("-")
    symbols = sorted(vocabulary.symbols.values())
    if silence is None or len(symbols) < 2:
        raise TaskError(
            "one symbol of these inputs is - and this program reads "
            f"{', '.join(vocabulary.symbols)}; choose the task 'program'"
        )
    said = [symbol for symbol in symbols if symbol != silence]
    require_room("two-circuits", n, len(said) * len(symbols) ** (min(length, _LONG) - 1))
    generator = random.Random(seed)
    inputs = [[generator.choice(said), *generator.choices(symbols, k=length - 1)] for _ in range(n)]
    steps = range(len(start), len(start) + length)
    return [
        Pair([*start, *each], [*start, silence, *each[1:]], [()] * length, steps=steps)
        for each in inputs
    ]


PROGRAM = Task(
    name="program",
    summary="runs a compiled program on random inputs",
    source="Lindner et al. 2023, arXiv 2301.05062",
    metric="l2",
    write=_write,
    written_in="symbols",
)

_OWN: Mapping[str, Mapping[str, Any]] = {
    "and-gate": {"corruptions": {"both": _write_both}},
    "or-gate": {"corruptions": {"both": _write_both}},
    "induction-pair": {"corruptions": {"once": _write_once}},
    "two-circuits": {"write": _write_silenced, "metric": "kl"},
}
"""In what a task differs from `program`."""

WIRED = tuple(
    replace(
        PROGRAM,
        name=name,
        summary=summary,
        source=source,
        model=name,
        **_OWN.get(name, {}),
    )
    for name, summary, source in (
        ("reverse", "says its input backwards", PROGRAM.source),
        ("hist", "says how often each symbol occurs", PROGRAM.source),
        ("xproportion", "says which share of the symbols so far is x", PROGRAM.source),
        ("induction-pair", "says what followed a symbol before", "wired by hand"),
        ("and-gate", "says whether both inputs are 1", "wired by hand"),
        ("or-gate", "says whether an input is 1", "wired by hand"),
        ("backup-head", "says the first symbol, with a backup head", "wired by hand"),
        ("two-circuits", "says the first symbol, by either of two circuits", "wired by hand"),
    )
)
"""A task for each embedded model whose circuit is known."""
