"""Text to tokens and back, the same for every tokenizer.

Tokenizers disagree on where a word's leading space belongs, so the token of a word is always asked
for as it stands inside a text: what the tokenizer adds when the word is appended to another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuitfind.errors import TaskError


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokenizer, as tasks see it.

    Attributes:
        tokenizer: A Hugging Face tokenizer.
        bos: Token put before every prompt, or None where the model was trained without one.
    """

    tokenizer: Any
    bos: int | None = None

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a prompt, with the one that starts sequences if there is one."""
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return [*([] if self.bos is None else [self.bos]), *tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens."""
        return str(self.tokenizer.decode(list(tokens)))

    def word(self, word: str) -> int | None:
        """Return the token of a word that follows another, or None if it takes several tokens."""
        stem = self.encode("a")
        longer = self.encode(f"a {word}")
        single = len(longer) == len(stem) + 1 and longer[: len(stem)] == stem
        if not single or longer[-1] == self.tokenizer.unk_token_id:
            return None
        return int(longer[-1])

    def answer(self, word: str) -> int:
        """Return the token of a word that follows another.

        Raises:
            TaskError: The word takes several tokens or is unknown.
        """
        token = self.word(word)
        if token is None:
            raise TaskError(
                f"the answer {word!r} is not a single token for this tokenizer; "
                "choose answers that it keeps whole"
            )
        return token

    def single_words(self, words: Sequence[str]) -> list[str]:
        """Return those of the words that the tokenizer keeps whole, in the given order."""
        return [word for word in words if self.word(word) is not None]


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Return a tokenizer's vocabulary, with the token that it itself puts before a text, if any."""
    tokens = tokenizer.encode("a")
    starts = bool(tokens) and tokens[0] == tokenizer.bos_token_id
    return Vocabulary(tokenizer, int(tokenizer.bos_token_id) if starts else None)
