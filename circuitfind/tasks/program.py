"""Compiled programs: random inputs, and what the program says at every position.

The clean prompt is a random input as long as the program reads, and the corrupted one another.
There are no answers: the program itself is right, and the metric is the distance to its outputs.
"""

import random
from collections.abc import Sequence

from circuitfind.errors import TaskError
from circuitfind.models.compiled import SymbolVocabulary
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair
from circuitfind.tasks.base import Task


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
    generator = random.Random(seed)
    return [_pair(generator, symbols, start, length) for _ in range(n)]


def _pair(
    generator: random.Random, symbols: Sequence[int], start: Sequence[int], length: int
) -> Pair:
    clean = generator.choices(symbols, k=length)
    corrupted = clean
    while corrupted == clean:
        corrupted = generator.choices(symbols, k=length)
    steps = range(len(start), len(start) + length)
    return Pair([*start, *clean], [*start, *corrupted], [()] * length, steps=steps)


PROGRAM = Task(
    name="program",
    summary="runs a compiled program on random inputs",
    source="Lindner et al. 2023, arXiv 2301.05062",
    metric="l2",
    write=_write,
    written_in="symbols",
)
