"""What a format of dictionaries is, and what the readers of several formats share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.errors import shortened
from circuitfind.files import read_text
from circuitfind.records import parse_json


@dataclass(frozen=True)
class DictionaryFormat:
    """A format in which dictionaries are kept.

    Attributes:
        name: What it is called.
        summary: Its files, in a line.
        mark: A pattern for a file that tells a directory of this format from all others.
        read: Reads the dictionaries of a directory. It raises an `OSError` or a `ValueError` that
            says what is wrong.
    """

    name: str
    summary: str
    mark: str
    read: Callable[[Path], tuple[Dictionary, ...]]


def json_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It does not hold a JSON object.
    """
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {shortened(str(error))}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} does not hold an object")
    return content
