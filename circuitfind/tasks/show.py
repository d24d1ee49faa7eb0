"""Show what a task's prompts look like to a model."""

from collections.abc import Sequence
from operator import itemgetter

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import NO_TOKEN, PromptPairs
from circuitfind.tasks.base import Task

_MOST_WORDS = 12
"""Longer lists of answers are shown without their middle."""

_ONLY_IDS = Vocabulary(None)


def shown_pairs(
    task: Task, vocabulary: Vocabulary | None, *, n: int = 3, seed: int = 0
) -> list[dict[str, str]]:
    """Return some pairs as text, a line each: both prompts, the answers, and the named positions.

    Prompts are shown token by token, separated by `|`, with visible spaces (`␣`); answers with the
    numbers of their tokens.

    Raises:
        TaskError: The model reads no text, or its tokenizer cannot express the task.
    """
    prompts = task.write_prompts(vocabulary, n, seed)
    return [_shown(prompts, row, vocabulary or _ONLY_IDS) for row in range(len(prompts))]


def notes_on(task: Task, vocabulary: Vocabulary | None, *, n: int, seed: int = 0) -> list[str]:
    """Return what should be known of a task's prompts before anything is measured on them.

    Raises:
        TaskError: The model reads no text, or its tokenizer cannot express the task.
    """
    prompts = task.write_prompts(vocabulary, n, seed)
    notes = []
    if prompts.n_distinct < len(prompts):
        notes.append(
            f"{prompts.n_distinct} of the {len(prompts)} pairs are distinct; repeated ones make "
            "intervals narrower than they should be"
        )
    pairs = task.write(vocabulary or _ONLY_IDS, n, seed)
    choices = [
        step for pair in pairs for side in (pair.answers, pair.wrong_answers) for step in side
    ]
    if repeated := sum(len(set(step)) < len(step) for step in choices):
        notes.append(
            f"{repeated} lists of answers name a token twice, such as with and without its space; "
            "it counts once"
        )
    return notes


def _shown(prompts: PromptPairs, row: int, vocabulary: Vocabulary) -> dict[str, str]:
    length = int(prompts.lengths[row])
    clean, corrupted = (
        "|".join(vocabulary.shown(token) for token in tokens[row, :length].tolist())
        for tokens in (prompts.clean, prompts.corrupted)
    )
    places = {name: int(index[row]) for name, index in prompts.positions.items()}
    names = [f"{name}={place}" for name, place in sorted(places.items(), key=itemgetter(1))]
    return {
        "clean": clean,
        "corrupted": corrupted,
        "answer": _answers(vocabulary, prompts.answers[row].flatten().tolist()),
        "wrong answer": _answers(vocabulary, prompts.wrong_answers[row].flatten().tolist()),
        "positions": " ".join(names),
    }


def _answers(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    given = [token for token in tokens if token != NO_TOKEN]
    texts = [vocabulary.answer_text(token) for token in given]
    words = [
        text if text == str(token) and vocabulary.tokenizer is None else f"{text} {token}"
        for text, token in zip(texts, given, strict=True)
    ]
    if len(words) > _MOST_WORDS:
        words[_MOST_WORDS - 2 : -1] = ["..."]
    return ", ".join(words)
