"""The tokens of an answer: those that follow a prompt as it is written.

An answer is appended to its prompt, and its tokens are what the tokenizer adds. A space is put
between them where a writer would put one: where the answer begins with a letter or a digit, and the
prompt ends in none of these: white space, an opening bracket or quotation mark, a special token
such as the end of a turn. Any other answer is taken exactly as written.
"""

import re
from collections.abc import Sequence

from circuitfind.errors import TaskError, quoted
from circuitfind.models.symbols import SymbolVocabulary
from circuitfind.models.vocabulary import Vocabulary

MOST_QUOTED = 60
"""Largest number of characters of a file that a message repeats at a time."""

_OPEN = re.compile(r"""(?:\s|[(\[{“‘„«‹<¿¡]|(?:^|\s)["'])\Z""")
"""Ends of a text that no space follows."""


def answer_tokens(
    vocabulary: Vocabulary,
    prompt: str,
    answer: str,
    space: str | None = None,
    *,
    tokens: Sequence[int] | None = None,
) -> list[int]:
    """Return the tokens of an answer after a prompt.

    Args:
        vocabulary: The tokenizer.
        prompt: The text before the answer.
        answer: The answer's text.
        space: What is put between them; by default a space where a writer would put one.
        tokens: Those of the prompt, where they are known.

    Raises:
        TaskError: The answer holds what the model cannot read, or no token follows the prompt.
    """
    if isinstance(vocabulary, SymbolVocabulary):
        return [vocabulary.answer(answer.strip())]
    if answer in vocabulary.added:
        return [vocabulary.added[answer]]
    between = space_between(vocabulary, prompt, answer) if space is None else space
    written = answer if answer[:1].isspace() else between + answer
    found = vocabulary.following(prompt, written, tokens)
    if not vocabulary.knows(answer, found):
        raise TaskError(
            f"the answer {quoted(answer, MOST_QUOTED)} cannot be written with this tokenizer: "
            f"{unreadable(vocabulary, vocabulary.read(answer).unknown)}"
        )
    if not found:
        raise TaskError(
            f"the answer {quoted(answer, MOST_QUOTED)} adds no token to its prompt; give its token "
            "ids"
        )
    return found


def answer_token(vocabulary: Vocabulary, prompt: str, answer: str, space: str | None = None) -> int:
    """Return the one token of an answer after a prompt (see `answer_tokens`).

    Raises:
        TaskError: The answer holds what the model cannot read, or is not one token.
    """
    found = answer_tokens(vocabulary, prompt, answer, space)
    if len(found) != 1:
        pieces = "|".join(vocabulary.shown(token) for token in found[:MOST_QUOTED])
        raise TaskError(
            f"the answer {quoted(answer, MOST_QUOTED)} is not a single token for this tokenizer, "
            f"but {len(found)} ({pieces[:MOST_QUOTED]}), and it is read at a step of its own; "
            "leave the steps out, or choose answers that the tokenizer keeps whole"
        )
    return found[0]


def space_between(vocabulary: Vocabulary, prompt: str, answer: str) -> str:
    """Return a space where a writer would put one between a prompt and its answer."""
    if not answer[:1].isalnum() or not prompt or prompt.endswith(vocabulary.special):
        return ""
    return "" if _OPEN.search(prompt) else " "


def unreadable(vocabulary: Vocabulary, words: Sequence[str]) -> str:
    """Return what is said of words that a model cannot read."""
    if isinstance(vocabulary, SymbolVocabulary):
        known = ", ".join(vocabulary.symbols)[: 2 * MOST_QUOTED]
        return f"the program knows no symbol {quoted(words[0], MOST_QUOTED)}; it knows {known}"
    first = ", ".join(quoted(word, MOST_QUOTED) for word in dict.fromkeys(words[:3]))
    return f"the model cannot read {first[: 2 * MOST_QUOTED]}; use words of its vocabulary"
