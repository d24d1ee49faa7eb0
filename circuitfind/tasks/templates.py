"""Filling a template with words, and finding the words again among the tokens.

Where a word's token sits depends on the tokenizer, and some tokenizers merge a word with what
follows. So the text up to the end of each word is encoded by itself: if the whole prompt starts
with the same tokens, the last of them is the word's last token; if not, the prompt is refused.
"""

from collections.abc import Collection, Mapping
from string import Formatter
from typing import NamedTuple

from circuitfind.models.vocabulary import Vocabulary


class Filled(NamedTuple):
    """The tokens of a filled template.

    Attributes:
        tokens: The whole prompt.
        positions: Where the last token of each word is, by the name of its slot.
    """

    tokens: list[int]
    positions: dict[str, int]


def fill(
    vocabulary: Vocabulary,
    template: str,
    words: Mapping[str, str],
    named: Collection[str] | None = None,
) -> Filled | None:
    """Fill a template such as `"{S2} gave a {object} to"` and encode it.

    Args:
        vocabulary: The tokenizer.
        template: Text with slots in braces.
        words: The word of each slot.
        named: Slots to be found again among the tokens; by default all.

    Returns:
        The tokens, or None if the tokenizer merges the end of a word with what follows it, or does
        not know a word.
    """
    whole = template.format(**words)
    tokens = vocabulary.encode(whole)
    if not vocabulary.knows(whole, tokens):
        return None
    text, positions = "", {}
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot is not None:
            text += words[slot]
        if slot is not None and (named is None or slot in named):
            start = vocabulary.encode(text)
            if tokens[: len(start)] != start:
                return None
            positions[slot] = len(start) - 1
    return Filled(tokens, positions)
