"""Show what a task's prompts look like to a model."""

from collections.abc import Sequence
from operator import itemgetter

from circuitfind.models.vocabulary import Vocabulary
from circuitfind.pairs import Answer, Pair, tokens_of
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
    task.write_prompts(vocabulary, n, seed)
    vocabulary = vocabulary or _ONLY_IDS
    return [_shown(pair, vocabulary) for pair in task.write(vocabulary, n, seed)]


def notes_on(task: Task, vocabulary: Vocabulary | None, *, n: int, seed: int = 0) -> list[str]:
    """Return what should be known of a task's prompts before anything is measured on them.

    Raises:
        TaskError: The model reads no text, or its tokenizer cannot express the task.
    """
    prompts = task.write_prompts(vocabulary, n, seed)
    notes = []
    if prompts.n_distinct < prompts.n_prompts:
        notes.append(
            f"{prompts.n_distinct} of the {prompts.n_prompts} pairs are distinct; repeated ones "
            "make intervals narrower than they should be"
        )
    pairs = task.write(vocabulary or _ONLY_IDS, n, seed)
    choices = [
        step for pair in pairs for side in (pair.answers, pair.wrong_answers) for step in side
    ]
    if repeated := sum(len({*map(tokens_of, step)}) < len(step) for step in choices):
        notes.append(
            f"{repeated} lists of answers name a token twice, such as with and without its space; "
            "it counts once"
        )
    return notes


def _shown(pair: Pair, vocabulary: Vocabulary) -> dict[str, str]:
    clean, corrupted = (
        "|".join(map(vocabulary.shown, tokens)) for tokens in (pair.clean, pair.corrupted)
    )
    places = sorted(pair.positions.items(), key=itemgetter(1))
    return {
        "clean": clean,
        "corrupted": corrupted,
        "answer": _answers(vocabulary, pair.answers),
        "wrong answer": _answers(vocabulary, pair.wrong_answers),
        "positions": " ".join(f"{name}={place}" for name, place in places),
    }


def _answers(vocabulary: Vocabulary, by_step: Sequence[Sequence[Answer]]) -> str:
    """Return answers with the numbers of their tokens; each once at a step."""
    given = [
        answer for step in by_step for answer in dict.fromkeys(tokens_of(each) for each in step)
    ]
    words = []
    for tokens in given:
        text, numbers = "|".join(map(vocabulary.answer_text, tokens)), "+".join(map(str, tokens))
        bare = vocabulary.tokenizer is None and len(tokens) == 1 and text == numbers
        words.append(numbers if bare else f"{text} {numbers}")
    if len(words) > _MOST_WORDS:
        words[_MOST_WORDS - 2 : -1] = ["..."]
    return ", ".join(words)
