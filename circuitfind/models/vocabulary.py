"""Text to tokens and back, the same for every tokenizer.

Tokenizers disagree on where a word's leading space belongs, and some merge the end of one text with
the start of the next. So the token of a word is always asked for as it stands inside a text: what
the tokenizer adds when the word is appended to another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from circuitfind.errors import TaskError

_BOUNDARIES = ("\n", "(", '"')
"""Texts whose end tokenizers leave alone, whatever follows; a space is not among them."""


class Reading(NamedTuple):
    """A tokenizer with what tasks need to know of it.

    Attributes:
        tokens: Its tokens.
        unknown: The parts of the text that it cannot read, in order.
    """

    tokens: list[int]
    unknown: list[str]


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokenizer, as tasks see it.

    Attributes:
        tokenizer: A Hugging Face tokenizer; None for programs and for prompts given by token ids.
        bos: Token put before every prompt, or None where the model was trained without one.
        system: The system prompt of every conversation; empty for none. By default that of the
            conversation, or else of the tokenizer's chat template.
    """

    tokenizer: Any
    bos: int | None = None
    system: str | None = field(default=None, kw_only=True)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a prompt, with the one that starts sequences if there is one.

        A text that begins with that token itself, as chat templates write it, gets no second one.
        """
        return self._started(self.tokenizer.encode(text, add_special_tokens=False))

    def _started(self, tokens: Sequence[int]) -> list[int]:
        start = [] if self.bos is None or tokens[:1] == [self.bos] else [self.bos]
        return [*start, *tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens."""
        return str(self.tokenizer.decode(list(tokens)))

    def shown(self, token: int) -> str:
        """Return a token's text as it stands inside a text, with its spaces and breaks visible."""
        if self.tokenizer is None:
            return str(token)
        piece, stem = self.decode([token]), self.encode("a")
        before, text = self.decode(stem), self.decode([*stem, token])
        if self._holds_spaces and text.startswith(before):
            piece = text.removeprefix(before)
        return piece.replace(" ", "␣").replace("\n", "\\n").replace("\t", "\\t")

    def divided(self, tokens: Sequence[int], at: int) -> tuple[str, str, str]:
        """Return the text before one of some tokens, that of the token, and the text after it."""
        before, until, text = (self.decode(tokens[:n]) for n in (at, at + 1, len(tokens)))
        if until.startswith(before) and text.startswith(until):
            return before, until.removeprefix(before), text.removeprefix(until)
        # Tokens that are parts of a character, or whose text depends on what follows.
        return before, self.decode(tokens[at : at + 1]), self.decode(tokens[at + 1 :])

    def following(self, text: str, answer: str, tokens: Sequence[int] | None = None) -> list[int]:
        """Return the tokens by which a text goes on with exactly this answer.

        Where the tokenizer would merge the end of the text with the start of the answer, the text's
        own tokens stand, since they are what the model reads. Empty if the answer has no tokens.

        Args:
            text: The text before the answer.
            answer: The answer, with the space before it if there is one.
            tokens: Those of the text, where they are known.
        """
        if answer in self.added:
            return [self.added[answer]]
        stem = self.encode(text) if tokens is None else list(tokens)
        longer = self.encode(text + answer)
        if longer[: len(stem)] == stem:
            return longer[len(stem) :]
        for before in ("a",) if answer[:1].isspace() else _BOUNDARIES:
            stem, longer = self.encode(before), self.encode(before + answer)
            if longer[: len(stem)] == stem:
                return longer[len(stem) :]
        return []

    @cached_property
    def _holds_spaces(self) -> bool:
        """Whether the token of a word depends on a space before the word."""
        return self.encode("a a")[-1:] != self.encode("(a")[-1:]

    @cached_property
    def added(self) -> dict[str, int]:
        """The tokens that were added to the tokenizer, special ones among them, by their text."""
        return {} if self.tokenizer is None else dict(self.tokenizer.get_added_vocab())

    @cached_property
    def special(self) -> tuple[str, ...]:
        """The texts of tokens that are marks rather than words, such as the end of a turn."""
        known = {} if self.tokenizer is None else self.tokenizer.added_tokens_decoder
        return tuple(str(token) for token in known.values() if token.special)

    def read(self, text: str) -> Reading:
        """Return the tokens of a prompt, as `encode` does, and what of it the model cannot read.

        That is what the tokenizer turns into its unknown token, unless the text names that token
        itself, and what it leaves out.
        """
        number, name = self.tokenizer.unk_token_id, self.tokenizer.unk_token
        if not self.tokenizer.is_fast:
            words = [word for word in text.split() if word != name]
            return Reading(self.encode(text), [w for w in words if number in self.encode(w)])
        tokens, spans = self._spans(text)
        pieces = (text[start:end].strip() for start, end in spans)
        unknown = [
            piece
            for token, piece in zip(tokens, pieces, strict=True)
            if token == number and piece != name
        ]
        if _has_gaps(text, spans):
            # What follows a character that was left out is given a wrong span; words are short.
            words = [word for word in text.split() if _has_gaps(word, self._spans(word)[1])]
            unknown += words or [text.strip()]
        return Reading(self._started(tokens), unknown)

    def _spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return a text's tokens, and which characters each stands for."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"], found["offset_mapping"]

    def knows(self, text: str, tokens: Sequence[int]) -> bool:
        """Tell whether the model can read all of a text with these tokens; quicker than `read`."""
        number = getattr(self.tokenizer, "unk_token_id", None)
        return (number is not None and number not in tokens) or not self.read(text).unknown

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

    def answer_text(self, token: int) -> str:
        """Return the text of an answer."""
        return self.shown(token)

    def single_words(self, words: Sequence[str]) -> list[str]:
        """Return those of the words that the tokenizer keeps whole, in the given order."""
        return [word for word in words if self.word(word) is not None]


def _has_gaps(text: str, spans: Sequence[tuple[int, int]]) -> bool:
    """Tell whether there are visible characters that no token covers."""
    covered = bytearray(len(text))
    for start, end in spans:
        covered[start:end] = b"\1" * (end - start)
    return any(
        not covered[place] and character.isprintable() and not character.isspace()
        for place, character in enumerate(text)
    )


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """Return a tokenizer's vocabulary, with the token that it itself puts before a text, if any."""
    tokens = tokenizer.encode("a")
    starts = bool(tokens) and tokens[0] == tokenizer.bos_token_id
    return Vocabulary(tokenizer, int(tokenizer.bos_token_id) if starts else None)
