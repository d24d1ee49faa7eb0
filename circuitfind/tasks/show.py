"""Show what a task's prompts look like to a model."""

from collections.abc import Sequence
from operator import itemgetter

from circuitfind.errors import quoted
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.pairs import Answer, Pair, tokens_of
from circuitfind.prompts import collate
from circuitfind.tasks.answers import MOST_QUOTED
from circuitfind.tasks.base import Task
from circuitfind.tasks.chat import has_template

_MOST_WORDS = 12
"""Longer lists of answers are shown without their middle."""

_ONLY_IDS = Vocabulary(None)


def shown_pairs(
    task: Task,
    vocabulary: Vocabulary | None,
    *,
    n: int = 3,
    seed: int = 0,
    system: str | None = None,
    mark: str = "",
) -> list[dict[str, str]]:
    """Return some pairs as text, a line each: prompts, answers, and positions.

    Prompts are shown token by token, separated by `|`, with visible spaces (`␣`); answers with the
    numbers of their tokens; `read at` are the positions whose logits are read.

    Args:
        task: The task.
        vocabulary: The model's tokenizer.
        n: How many pairs.
        seed: Fixes them.
        system: The system prompt of conversations, empty for none; by default their own.
        mark: What is put behind each token of a clean prompt whose logits are read.

    Raises:
        TaskError: The model reads no text, or its tokenizer cannot express the task.
    """
    pairs = task.write_pairs(vocabulary, n, seed, system=system)
    collate(pairs)
    return [_shown(pair, vocabulary or _ONLY_IDS, mark) for pair in pairs]


def note_on_system(
    task: Task, vocabulary: Vocabulary | None, system: str | None = None
) -> list[str]:
    """Return whose system prompt the conversations of a task have, if its prompts are such."""
    if vocabulary is None or not (task.chat and has_template(vocabulary)):
        return []
    if system is not None:
        named = f"the system prompt {quoted(system, MOST_QUOTED)}"
        chosen = named if system else "no system prompt"
        return [f"conversations have {chosen}, and end where the assistant's turn begins"]
    return [
        "conversations have the system prompt of the file or of the chat template, if there is "
        "one, and end where the assistant's turn begins; --system TEXT chooses another one"
    ]


def notes_on(task: Task, vocabulary: Vocabulary | None, *, n: int, seed: int = 0) -> list[str]:
    """Return what should be known of a task's prompts before anything is measured on them.

    Raises:
        TaskError: The model reads no text, or its tokenizer cannot express the task.
    """
    pairs = task.write_pairs(vocabulary, n, seed)
    prompts, notes = collate(pairs), []
    if prompts.n_distinct < prompts.n_prompts:
        notes.append(
            f"{prompts.n_distinct} of the {prompts.n_prompts} pairs are distinct; repeated ones "
            "make intervals narrower than they should be"
        )
    choices = [
        step for pair in pairs for side in (pair.answers, pair.wrong_answers) for step in side
    ]
    if repeated := sum(len({*map(tokens_of, step)}) < len(step) for step in choices):
        notes.append(
            f"{repeated} lists of answers name a token twice, such as with and without its space; "
            "it counts once"
        )
    return notes


def _shown(pair: Pair, vocabulary: Vocabulary, mark: str) -> dict[str, str]:
    clean, corrupted = (
        [vocabulary.shown(token) for token in tokens] for tokens in (pair.clean, pair.corrupted)
    )
    for place in pair.read_at:
        clean[place] += mark
    places = sorted(pair.positions.items(), key=itemgetter(1))
    return {
        "clean": "|".join(clean),
        "corrupted": "|".join(corrupted),
        "answer": _answers(vocabulary, pair.answers),
        "wrong answer": _answers(vocabulary, pair.wrong_answers),
        "read at": " ".join(map(str, pair.read_at)),
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
