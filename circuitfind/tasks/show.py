"""Show what a task's prompts look like to a model."""

from collections.abc import Sequence
from operator import itemgetter

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import NO_TOKEN
from circuitfind.tasks.base import Task

_MOST_WORDS = 12
"""Longer lists of answers are shown without their middle."""


def shown_pairs(
    task: Task, vocabulary: Vocabulary | None, *, n: int = 3, seed: int = 0
) -> list[dict[str, str]]:
    """Return some pairs as text, a line each: both prompts, the answers, and the named positions.

    Raises:
        TaskError: The model reads no text, or its tokenizer cannot express the task.
    """
    prompts = task.write_prompts(vocabulary, n, seed)
    assert vocabulary is not None  # or the task would have refused
    rows = []
    for row in range(len(prompts)):
        length = int(prompts.lengths[row])
        clean, corrupted = (
            vocabulary.decode(tokens[row, :length].tolist()).replace("\n", "\\n")
            for tokens in (prompts.clean, prompts.corrupted)
        )
        places = {name: int(index[row]) for name, index in prompts.positions.items()}
        names = [f"{name}={place}" for name, place in sorted(places.items(), key=itemgetter(1))]
        rows.append(
            {
                "clean": clean,
                "corrupted": corrupted,
                "answer": _words(vocabulary, prompts.answers[row].flatten().tolist()),
                "wrong answer": _words(vocabulary, prompts.wrong_answers[row].flatten().tolist()),
                "positions": " ".join(names),
            }
        )
    return rows


def _words(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    words = [vocabulary.decode([token]).strip() for token in tokens if token != NO_TOKEN]
    if len(words) > _MOST_WORDS:
        words[_MOST_WORDS - 2 : -1] = ["..."]
    return ", ".join(words)
