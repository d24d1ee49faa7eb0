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
    """Write messages into a tokenizer's chat template.

    Raises:
        TaskError: The tokenizer has no template, or its template refuses the messages.
    """
    if not has_template(vocabulary):
        raise TaskError(
            "this model's tokenizer has no chat template; write the dialogue out as plain text, or "
            "use a chat model"
        )
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
