"""One line of a task file: what it may say, and the checks that need no tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuitfind.errors import quoted
from circuitfind.tasks.chat import Message

COLUMNS = (
    "clean", "corrupted", "answer", "wrong_answer", "clean_ids", "corrupted_ids", "answer_ids",
    "wrong_answer_ids", "steps", "positions", "spans", "corrupted_spans",
    "chat", "system", "space",
)  # fmt: skip
REQUIRED = COLUMNS[:3]

_MOST_CHARACTERS = 200_000
"""Of one prompt."""
_MOST_ANSWERS = 10_000
"""Of one pair, all steps together."""
_MOST_NAME = 100
"""Characters of the name of a position."""
_MOST_ID = 2**31 - 1

Prompt = str | tuple[int, ...] | tuple[Message, ...]
"""A text, token ids, or the messages of a conversation."""

Choices = tuple[tuple[str | int | tuple[int, ...], ...], ...]
"""For each step the answers, as texts, as token ids, or as several token ids each."""


class LineError(ValueError):
    """The error in a line; a message shows it after the line's number."""


@dataclass(frozen=True)
class Row:
    """One line of a file.

    Attributes:
        line: Its number in the file, from 1.
        clean: The clean prompt.
        corrupted: The corrupted prompt, of the same kind.
        answers: The right answers at each step.
        wrong_answers: The wrong answers at each step; may be empty.
        steps: Where the metric reads, counted in tokens; None is the last position.
        positions: Named positions, counted in tokens.
        spans: Where named spans of the clean prompt begin, counted in tokens.
        corrupted_spans: The same of the corrupted prompt, where they lie elsewhere.
        chat: Whether texts are what the user says to a chat model.
        system: The system prompt of a conversation.
        space: Whether a space precedes the answers; None leaves it to the usual rule.
    """

    line: int
    clean: Prompt
    corrupted: Prompt
    answers: Choices
    wrong_answers: Choices = ()
    steps: tuple[int, ...] | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    spans: Mapping[str, int] = field(default_factory=dict)
    corrupted_spans: Mapping[str, int] = field(default_factory=dict)
    chat: bool = False
    system: str | None = None
    space: bool | None = None

    @property
    def needs_tokenizer(self) -> bool:
        """Whether anything is given as text."""
        tokens = (self.clean, self.corrupted, *self.answers, *self.wrong_answers)
        return any(isinstance(part, str | Mapping) for each in tokens for part in each)


def row_from(line: int, record: Mapping[str, Any]) -> Row:
    """Check what a line says.

    Raises:
        LineError: Something is missing, unknown or of the wrong kind.
    """
    said = {name: value for name, value in record.items() if value not in (None, "", [], {})}
    _require_columns(said)
    steps = _steps(said.get("steps"))
    n_steps = 1 if steps is None else len(steps)
    clean, corrupted = (_prompt(said, name) for name in ("clean", "corrupted"))
    if _kind(clean) != _kind(corrupted):
        raise LineError(": give both prompts as texts, or both as messages, or both as token ids")
    return Row(
        line,
        clean,
        corrupted,
        answers=_choices(said, "answer", n_steps),
        wrong_answers=_choices(said, "wrong_answer", n_steps),
        steps=steps,
        positions=_positions("position", said.get("positions", {})),
        spans=_positions("span", said.get("spans", {})),
        corrupted_spans=_positions("span", said.get("corrupted_spans", {})),
        chat=_flag(said, "chat") or _kind(clean) is Mapping,
        system=_system(said, clean),
        space=_flag(said, "space"),
    )


def _require_columns(said: Mapping[str, Any]) -> None:
    missing = [name for name in REQUIRED if name not in said and f"{name}_ids" not in said]
    unknown = [name for name in said if name not in COLUMNS]
    if missing or unknown:
        what = f" has no {missing[0]!r}" if missing else f" has a column {quoted(unknown[0])}"
        raise LineError(f"{what}; the columns are {', '.join(COLUMNS)}, of which three are needed")
    twice = [name for name in said if f"{name}_ids" in said]
    if twice:
        raise LineError(f": give {twice[0]} or {twice[0]}_ids, not both")


def _prompt(said: Mapping[str, Any], name: str) -> Prompt:
    if f"{name}_ids" in said:
        return _ids(f"{name}_ids", said[f"{name}_ids"])
    value = said[name]
    if isinstance(value, list) and all(map(_is_message, value)):
        size = sum(len(message["content"]) for message in value)
        found: Prompt = tuple(value)
    elif isinstance(value, str) and value.strip():
        size, found = len(value), value
    else:
        raise LineError(
            f": prompts must be texts, or lists of messages with a role and a content, and {name} "
            f"is {quoted(value)}"
        )
    if size > _MOST_CHARACTERS:
        raise LineError(f": {name} has {size:,} characters; a prompt may have {_MOST_CHARACTERS:,}")
    return found


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and (
        set(value) == {"role", "content"} and all(isinstance(part, str) for part in value.values())
    )


def _kind(prompt: Prompt) -> type:
    if isinstance(prompt, str):
        return str
    return int if isinstance(prompt[0], int) else Mapping


def _ids(name: str, value: object) -> tuple[int, ...]:
    numbers = value if isinstance(value, list) else [value]
    wrong = [number for number in numbers if not _is_id(number)]
    if wrong or len(numbers) > _MOST_CHARACTERS:
        raise LineError(
            f": {name} holds {quoted(wrong[0]) if wrong else f'{len(numbers):,} numbers'}; "
            f"token ids are whole numbers from 0, at most {_MOST_CHARACTERS:,} of them"
        )
    return tuple(numbers)


def _is_id(number: object) -> bool:
    return type(number) is int and 0 <= number <= _MOST_ID


def _choices(said: Mapping[str, Any], name: str, n_steps: int) -> Choices:
    name = f"{name}_ids" if f"{name}_ids" in said else name
    if name not in said:
        return ()
    value = said[name]
    by_step = value if isinstance(value, list) else [value]
    if n_steps == 1 and not any(isinstance(each, list) for each in by_step):
        by_step = [by_step]
    if len(by_step) != n_steps:
        raise LineError(
            f": {name} has {len(by_step)} entries and steps {n_steps}; give the answers of each "
            "step, several as a list"
        )
    listed = [each if isinstance(each, list) else [each] for each in by_step]
    if name.endswith("_ids"):
        listed = [[_joined_ids(answer) for answer in step] for step in listed]
    _require_answers(name, [answer for step in listed for answer in step])
    return tuple(map(tuple, listed))


def _joined_ids(answer: object) -> object:
    """Return the token ids of an answer that is written `12+34`; anything else as it is."""
    parts = answer.split("+") if isinstance(answer, str) else []
    if len(parts) < 2 or not all(part.strip().isdecimal() for part in parts):
        return answer
    return tuple(map(int, parts))


def _require_answers(name: str, answers: Sequence[object]) -> None:
    texts = not name.endswith("_ids")
    wrong = [each for each in answers if not (_are_ids(each) or (texts and _is_text(each)))]
    if wrong:
        kinds = "texts or token ids"
        if not texts:
            kinds = "token ids, whole numbers from 0; '12+34' is one answer of two tokens"
        raise LineError(f": {name} holds {quoted(wrong[0])}; answers must be {kinds}")
    if not 0 < len(answers) <= _MOST_ANSWERS:
        raise LineError(
            f": {name} holds {len(answers):,} answers; give from 1 to {_MOST_ANSWERS:,}"
        )


def _are_ids(answer: object) -> bool:
    return all(map(_is_id, answer)) if isinstance(answer, tuple) else _is_id(answer)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MOST_CHARACTERS


def _steps(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    steps = _ids("steps", value)
    if len(set(steps)) < len(steps):
        raise LineError(": steps names a position twice; give each once")
    return steps


def _positions(kind: str, value: object) -> Mapping[str, int]:
    if not isinstance(value, dict) or not all(type(index) is int for index in value.values()):
        raise LineError(f": {kind}s must be an object from names to whole numbers")
    for name in value:
        if not (
            name.strip() and name.isprintable() and len(name) <= _MOST_NAME and "," not in name
        ):
            raise LineError(
                f": {quoted(name)} cannot name a {kind}; names have from 1 to {_MOST_NAME} "
                "printable characters and no commas"
            )
    return value


def _flag(said: Mapping[str, Any], name: str) -> bool | None:
    value = said.get(name)
    if value is not None and not isinstance(value, bool):
        raise LineError(f": {name} is {quoted(value)} and must be true or false")
    return value


def _system(said: Mapping[str, Any], clean: Prompt) -> str | None:
    system = said.get("system")
    chat = said.get("chat") or _kind(clean) is Mapping
    if _kind(clean) is int and said.get("chat"):
        raise LineError(": chat is for texts, and these prompts are token ids")
    if system is not None and not (isinstance(system, str) and chat):
        raise LineError(": system is the text of a system prompt, and goes with chat")
    return system
