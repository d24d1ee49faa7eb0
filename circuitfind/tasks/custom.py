"""Tasks from a file: JSON lines or CSV with a pair of prompts on each line.

    clean, corrupted      the prompts, with equally many tokens
    answer, wrong_answer  the right next word and the wrong one, or several; no wrong one is needed;
                          or a right answer of several tokens, and a wrong one
    ..._ids               the same four as token ids, for models without a tokenizer too
    positions             names of positions, counted in tokens from 0
    steps                 where the metric reads; the last position unless given
    chat, system          whether prompts are a user's turn to a chat model, and its system prompt
    space                 whether a space precedes the answers (`circuitfind.tasks.answers`)

A file of one of MIB's data sets is a task as well (`circuitfind.tasks.mib`).

A beginning-of-sequence token is added to texts where the model has one, and does not count in
positions and steps. Token ids are taken as they are.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitfind.errors import CircuitfindError, PromptError, TaskError
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.pairs import Answer, Pair, complaint_about
from circuitfind.tasks.answers import MOST_QUOTED, answer_token, answer_tokens, unreadable
from circuitfind.tasks.base import Task
from circuitfind.tasks.chat import conversation
from circuitfind.tasks.mib import MibRow, mib_task
from circuitfind.tasks.reading import Complaints, read_rows
from circuitfind.tasks.rows import Choices, LineError, Prompt, Row


def custom_task(path: Path) -> Task:
    """Read a task from a file.

    Writing n pairs gives all lines of a file with n or fewer, and otherwise n of them drawn by the
    seed, in the file's order. All lines must be such that the tokenizer can express them.

    Raises:
        TaskError: The file cannot be read, is empty, or a line lacks something.
    """
    found = read_rows(path)
    if official := [row for row in found if isinstance(row, MibRow)]:
        return mib_task(path, official)
    rows = [row for row in found if isinstance(row, Row)]
    written: list[tuple[Vocabulary, list[Pair]]] = []

    def write(vocabulary: Vocabulary, n: int, seed: int) -> list[Pair]:
        if not written or written[0][0] != vocabulary:
            written[:] = [(vocabulary, _pairs(vocabulary, path, rows))]
        pairs = written[0][1]
        chosen = sorted(random.Random(seed).sample(range(len(rows)), min(n, len(rows))))
        return [pairs[index] for index in chosen]

    return Task(
        name=path.stem,
        summary=f"the {len(rows)} pairs of prompts in {path.name}",
        source=str(path),
        metric="kl",
        write=write,
        written_in="either" if any(row.needs_tokenizer for row in rows) else "ids",
        chat=any(row.chat for row in rows),
    )


def _pairs(vocabulary: Vocabulary, path: Path, rows: Sequence[Row]) -> list[Pair]:
    complaints, pairs = Complaints(path), []
    for row in rows:
        try:
            pairs.append(_pair(vocabulary, row, f"{path.name}, line {row.line}"))
        except LineError as error:
            complaints.add(row.line, str(error), PromptError)
        except CircuitfindError as error:
            complaints.add(row.line, f": {error}", type(error))
    complaints.raise_if_any(len(rows))
    return pairs


@dataclass(frozen=True)
class _Written:
    """A prompt as the model reads it.

    Attributes:
        tokens: Its tokens.
        text: Its text; None for one that is given by token ids.
        start: How many tokens come before the first that is counted.
        space: What is put before answers; None leaves it to the usual rule.
    """

    tokens: Sequence[int]
    text: str | None = None
    start: int = 0
    space: str | None = None

    def answer(self, vocabulary: Vocabulary, step: int, answer: str | Answer) -> Answer:
        """Return an answer after a step; one after the last position may take several tokens."""
        if not isinstance(answer, str):
            return answer
        if self.text is not None and step == len(self.tokens) - 1:
            found = answer_tokens(vocabulary, self.text, answer, self.space, tokens=self.tokens)
            return found[0] if len(found) == 1 else found
        before = vocabulary.decode(self.tokens[self.start : step + 1])
        return answer_token(vocabulary, before, answer, self.space)


def _pair(vocabulary: Vocabulary, row: Row, source: str) -> Pair:
    clean, corrupted = (
        _written(vocabulary, row, name, prompt)
        for name, prompt in (("clean", row.clean), ("corrupted", row.corrupted))
    )
    if len(clean.tokens) != len(corrupted.tokens) and not row.corrupted_spans:
        raise LineError(
            f" is misaligned: {len(clean.tokens)} clean tokens {_shown(vocabulary, clean)} and "
            f"{len(corrupted.tokens)} corrupted ones {_shown(vocabulary, corrupted)}; make both "
            "prompts equally long, or give `spans` and `corrupted_spans`"
        )
    place_of = partial(_index, clean)
    steps = None if row.steps is None else [place_of("step", index) for index in row.steps]
    read = [len(clean.tokens) - 1] if steps is None else steps
    right, wrong = (
        _tokens(vocabulary, clean, read, choices) for choices in (row.answers, row.wrong_answers)
    )
    positions = {
        name: place_of(f"position {name!r}", index) for name, index in row.positions.items()
    }
    spans, corrupted_spans = (
        {name: _index(prompt, f"span {name!r}", index) for name, index in starts.items()}
        for prompt, starts in ((clean, row.spans), (corrupted, row.corrupted_spans))
    )
    pair = Pair(
        clean.tokens,
        corrupted.tokens,
        right,
        wrong,
        steps,
        positions=positions,
        spans=spans,
        corrupted_spans=corrupted_spans,
        source=source,
    )
    if complaint := complaint_about(pair):
        raise LineError(complaint)
    return pair


def _written(vocabulary: Vocabulary, row: Row, name: str, prompt: Prompt) -> _Written:
    text, space = _text(vocabulary, row, prompt)
    if text is None:
        return _Written([token for token in prompt if isinstance(token, int)], space=space)
    tokens, unknown = vocabulary.read(text)
    if unknown:
        raise TaskError(f"in the {name} prompt, {unreadable(vocabulary, unknown)}")
    start = 0 if vocabulary.bos is None else 1
    if len(tokens) == start:
        raise PromptError(f"the {name} prompt has no tokens; write some words")
    return _Written(tokens, text, start, space)


def _text(vocabulary: Vocabulary, row: Row, prompt: Prompt) -> tuple[str | None, str | None]:
    """Return a prompt's text, None if it is given by token ids, and what precedes answers."""
    space = None if row.space is None else " " * row.space
    if isinstance(prompt, str) and not row.chat:
        return prompt, space
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = [turn for turn in turns if not isinstance(turn, int)]
    if not messages:
        return None, space
    if row.system is not None:
        messages = [{"role": "system", "content": row.system}, *messages]
    written = conversation(vocabulary, messages)
    return written.text, written.space if space is None else space


def _tokens(
    vocabulary: Vocabulary, prompt: _Written, steps: Sequence[int], choices: Choices
) -> list[list[Answer]]:
    return [
        [prompt.answer(vocabulary, step, answer) for answer in answers]
        for step, answers in zip(steps, choices, strict=False)
    ]


def _index(prompt: _Written, what: str, index: int) -> int:
    if not 0 <= index < len(prompt.tokens) - prompt.start:
        raise PromptError(
            f"the {what} is {index} and the prompt has {len(prompt.tokens) - prompt.start} tokens, "
            "counted from 0"
        )
    return index + prompt.start


def _shown(vocabulary: Vocabulary, prompt: _Written) -> str:
    if prompt.text is None:
        return " ".join(map(str, prompt.tokens[:MOST_QUOTED]))[:MOST_QUOTED]
    text = "|".join(vocabulary.shown(token) for token in prompt.tokens[:MOST_QUOTED])
    return text if len(text) <= 2 * MOST_QUOTED else f"{text[: 2 * MOST_QUOTED]}..."
