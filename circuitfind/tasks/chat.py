"""A conversation as a chat model reads it, up to where the assistant's turn begins."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from circuitfind.errors import TaskError
from circuitfind.models.vocabulary import Vocabulary

Message = Mapping[str, str]
"""A turn: `role` and `content`."""

_PROBE = "Answer"


class Conversation(NamedTuple):
    """The text of a conversation.

    Attributes:
        text: What the model reads, with the start of the assistant's turn at its end.
        space: What the template puts between that and what the assistant says.
    """

    text: str
    space: str


def has_template(vocabulary: Vocabulary) -> bool:
    """Return whether a tokenizer says how conversations are written."""
    return bool(getattr(vocabulary.tokenizer, "chat_template", None))


def conversation(vocabulary: Vocabulary, messages: Sequence[Message]) -> Conversation:
    """Write messages into a tokenizer's chat template, with the system prompt that was chosen.

    Raises:
        TaskError: The tokenizer has no template, or its template refuses the messages.
    """
    require_template(vocabulary)
    if vocabulary.system is not None:
        messages = [message for message in messages if message["role"] != "system"]
    if vocabulary.system:
        messages = [_system(vocabulary.system), *messages]
    written = _written(vocabulary, messages)
    if vocabulary.system == "":
        return written._replace(text=_without_system(vocabulary, messages, written.text))
    return written


def require_template(vocabulary: Vocabulary | None) -> None:
    """Refuse a model without a chat template.

    Raises:
        TaskError: The message says what to do.
    """
    if vocabulary is None or not has_template(vocabulary):
        raise TaskError(
            "this model's tokenizer has no chat template; write the dialogue out as plain text, or "
            "use a chat model"
        )


def _written(vocabulary: Vocabulary, messages: Sequence[Message]) -> Conversation:
    text = _rendered(vocabulary, messages, opened=True)
    try:
        answered = _rendered(
            vocabulary, [*messages, {"role": "assistant", "content": _PROBE}], opened=False
        )
    except TaskError:
        return Conversation(text, "")
    before = answered.removeprefix(text).partition(_PROBE)[0]
    spaced = answered.startswith(text) and before.isspace()
    return Conversation(text, before if spaced else "")


def _system(prompt: str) -> Message:
    return {"role": "system", "content": prompt}


def _without_system(vocabulary: Vocabulary, messages: Sequence[Message], text: str) -> str:
    """Return a conversation without the system prompt that its template adds by itself.

    A template adds none if what precedes the first turn also precedes a system prompt. Otherwise
    the turns are those that follow other turns, where no template puts a system prompt.

    Raises:
        TaskError: The template writes turns differently after others.
    """
    earlier = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
    before = _rendered(vocabulary, earlier, opened=False)
    longer = _rendered(vocabulary, [*earlier, *messages], opened=True)
    turns = longer.removeprefix(before)
    if longer == turns or not text.endswith(turns):
        raise TaskError(
            "the tokenizer's chat template writes a turn differently after other turns, so its own "
            "system prompt cannot be left out; choose a system prompt, or write the dialogue out "
            "as plain text"
        )
    head = text.removesuffix(turns)
    try:
        chosen = _rendered(vocabulary, [_system(_PROBE), *messages], opened=True)
    except TaskError:
        return text
    return text if chosen.startswith(head) else turns


def _rendered(vocabulary: Vocabulary, messages: Sequence[Message], *, opened: bool) -> str:
    try:
        text = vocabulary.tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=opened
        )
    # A template is a program of the checkpoint's author and can fail in any way.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200]
        raise TaskError(
            f"the tokenizer's chat template refuses these messages ({reason}); change their roles "
            "or write the dialogue out as plain text"
        ) from None
    return str(text)
