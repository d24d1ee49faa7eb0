"""Tasks: a behaviour, its prompts, and the metric that measures it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from circuitfind.errors import TaskError, quoted
from circuitfind.limits import require
from circuitfind.models.symbols import SymbolVocabulary
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.prompts import Pair, PromptPairs, collate
from circuitfind.tasks.chat import require_template

Writer = Callable[[Vocabulary, int, int], Sequence[Pair]]
"""Writes n pairs for a tokenizer from a seed."""


@dataclass(frozen=True)
class Task:
    """A behaviour to explain.

    Attributes:
        name: What the command line calls it.
        summary: What the model does, in a sentence.
        source: The paper that studies it.
        metric: Name of the metric that is used unless another is asked for.
        write: Writes any number of pairs for a tokenizer from a seed. The same arguments always
            give the same pairs.
        corruptions: Other ways to corrupt the same clean prompts, by name; `write` has the usual
            one.
        known_circuit: The published circuit, as data, where there is one.
        model: The embedded model to study unless another is named; None means the usual one.
        written_in: The words of a language, the symbols of a compiled program, either, or token
            ids, which need no tokenizer.
        chat: Whether its prompts are conversations where the tokenizer has a chat template, so that
            their system prompt can be chosen.
    """

    name: str
    summary: str
    source: str
    metric: str
    write: Writer
    corruptions: Mapping[str, Writer] = field(default_factory=dict)
    known_circuit: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    written_in: Literal["words", "symbols", "either", "ids"] = "words"
    chat: bool = False

    def corrupted_by(self, corruption: str) -> "Task":
        """Return the task with another corruption, named `TASK:CORRUPTION`.

        Raises:
            TaskError: The task knows no such corruption; the message lists those that it knows.
        """
        if corruption not in self.corruptions:
            known = ", ".join(f"{self.name}:{name}" for name in self.corruptions)
            raise TaskError(
                f"the task {self.name!r} knows no corruption {quoted(corruption)}; "
                + (f"choose {self.name}, {known}" if known else f"choose {self.name!r} alone")
            )
        name, write = f"{self.name}:{corruption}", self.corruptions[corruption]
        return replace(self, name=name, write=write, corruptions={})

    def write_prompts(
        self, vocabulary: Vocabulary | None, n: int, seed: int, *, system: str | None = None
    ) -> PromptPairs:
        """Write n pairs of prompts; see `write_pairs`."""
        return collate(self.write_pairs(vocabulary, n, seed, system=system))

    def write_pairs(
        self, vocabulary: Vocabulary | None, n: int, seed: int, *, system: str | None = None
    ) -> Sequence[Pair]:
        """Write n pairs of prompts, before they become rows.

        Args:
            vocabulary: The model's tokenizer.
            n: How many.
            seed: Fixes them.
            system: The system prompt of conversations, empty for none; by default their own.

        Raises:
            LimitError: So many prompts cannot be written.
            TaskError: The model reads no text, its tokenizer cannot express the task, or a system
                prompt is chosen where there are no conversations.
        """
        if vocabulary is None and self.written_in == "ids":
            vocabulary = Vocabulary(None)
        if vocabulary is None:
            raise TaskError(
                f"the task {self.name!r} is written in words and this model has no tokenizer; "
                "give a model directory with tokenizer files, or a task file of token ids"
            )
        self._require_readable_by(vocabulary)
        require(prompts=n)
        if system is not None:
            self.require_chat()
            require_template(vocabulary)
            vocabulary = replace(vocabulary, system=system)
        return self.write(vocabulary, n, seed)

    def require_chat(self) -> None:
        """Refuse a system prompt where prompts are not conversations.

        Raises:
            TaskError: They are not.
        """
        if not self.chat:
            raise TaskError(
                f"the prompts of the task {self.name!r} are not conversations, so they have no "
                "system prompt; leave --system out"
            )

    def _require_readable_by(self, vocabulary: Vocabulary) -> None:
        compiled = isinstance(vocabulary, SymbolVocabulary)
        if compiled and self.written_in == "words":
            raise TaskError(
                f"the task {self.name!r} is written in words and this model is a compiled program; "
                "choose the task 'program', or write its inputs into a .jsonl or .csv file"
            )
        if not compiled and self.written_in == "symbols":
            raise TaskError(
                f"the task {self.name!r} runs a compiled program and this model reads words; "
                "choose another task (`circuitfind tasks`), or a model wired by hand "
                "(`circuitfind models`)"
            )
