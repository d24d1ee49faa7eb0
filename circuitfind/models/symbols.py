"""The vocabulary of compiled models: symbols go in, and outputs have names of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from circuitfind.errors import ModelError, TaskError, quoted, shortened
from circuitfind.models.compiled_sizes import Sizes
from circuitfind.models.vocabulary import Reading, Vocabulary

_NOT_INPUTS = ("BOS", "compiler_pad")


@dataclass(frozen=True)
class SymbolVocabulary(Vocabulary):
    """The symbols of a compiled model instead of a tokenizer's words.

    Attributes:
        symbols: The number of each symbol that can be an input.
        n_positions: How many positions the model reads, the first one included.
        outputs: The number of each output that can be an answer; if empty, outputs are symbols.
        outputs_on: Runs the model on tokens [batch pos] and returns its outputs [batch pos output].
    """

    symbols: Mapping[str, int] = field(default_factory=dict)
    n_positions: int = 1
    outputs: Mapping[str, int] = field(default_factory=dict)
    outputs_on: Callable[[Tensor], Tensor] | None = field(default=None, compare=False)

    def encode(self, text: str) -> list[int]:
        """Return the numbers of symbols separated by spaces, after the one that starts inputs."""
        tokens, unknown = self.read(text)
        if unknown:
            raise ModelError(
                f"the program knows no symbol {quoted(unknown[0])}; "
                f"it knows {shortened(', '.join(self.symbols))}"
            )
        return tokens

    def read(self, text: str) -> Reading:
        """Return the numbers of the symbols that the model knows, and those that it does not."""
        symbols = text.split()
        start = [] if self.bos is None else [self.bos]
        if start and symbols[:1] == ["BOS"]:
            del symbols[0]
        known = [self.symbols[symbol] for symbol in symbols if symbol in self.symbols]
        return Reading(
            [*start, *known], [symbol for symbol in symbols if symbol not in self.symbols]
        )

    def shown(self, token: int) -> str:
        """Return a symbol."""
        return self.decode([token])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the symbols of some numbers; a number that has none stays one."""
        names = {number: symbol for symbol, number in self.symbols.items()}
        names |= {} if self.bos is None else {self.bos: "BOS"}
        return " ".join(names.get(int(token), str(int(token))) for token in tokens)

    @property
    def _answers(self) -> Mapping[str, int]:
        return self.outputs or self.symbols

    def word(self, word: str) -> int | None:
        """Return the number of an output, or None if there is no such output."""
        return self._answers.get(word)

    def answer(self, word: str) -> int:
        """Return the number of an output.

        Raises:
            TaskError: There is no such output.
        """
        number = self.word(word)
        if number is None:
            raise TaskError(
                f"the answer {quoted(word)} is not a single token: the model's outputs are "
                f"{shortened(', '.join(self._answers))}"
            )
        return number

    def answer_text(self, token: int) -> str:
        """Return the name of an output."""
        names = {number: name for name, number in self._answers.items()}
        return names.get(token, str(token))


def symbols_of(sizes: Sizes, outputs_on: Callable[[Tensor], Tensor]) -> SymbolVocabulary:
    """Return the vocabulary of a compiled model, given a function that runs it."""
    tokens = sizes.tokens
    symbols = {name: number for name, number in tokens.items() if name not in _NOT_INPUTS}
    if sizes.output_labels:
        outputs = {label: number for number, label in enumerate(sizes.output_labels)}
    elif sizes.d_vocab_out == sizes.d_vocab:
        outputs = symbols
    else:
        outputs = {str(number): number for number in range(sizes.d_vocab_out)}
    return SymbolVocabulary(None, tokens.get("BOS"), symbols, sizes.n_ctx, outputs, outputs_on)
