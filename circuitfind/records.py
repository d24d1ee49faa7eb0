"""JSON: its text, and frozen dataclasses as plain JSON values and back.

Reading refuses whatever is not of the declared types, and says where it stands. Types are made of
dataclasses, tuples, mappings, literals, plain values, and unions of one of each with None.

Files outlive versions. A field with a default may be missing, since an older version did not know
it, and fields that are not declared are passed over, since a newer version may have added them. A
change of meaning raises the version in the file's `format`, and is refused by older readers.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from circuitfind.errors import NewerFileError, quoted, shortened

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text, or its bytes in UTF-8.
        finite: Refuse NaN and infinite numbers.

    Raises:
        ValueError: It is no JSON, is nested too deep, names something twice in one object, or holds
            a number or a text that it must not.
    """
    rules: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite}
    try:
        found = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(found, object_pairs_hook=_unique, **(rules if finite else {}))
        if _SURROGATE.search(found):
            # Half a character cannot be written to any file or terminal.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that names something twice: all values but the last would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {quoted(twice)} twice in one object")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds {text}, which is too large")
    return number


def as_json(record: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values; a number that is not finite becomes None."""
    found: dict[str, Any] = plain(asdict(record))
    return found


def body_of(content: Any, form: str, of: Path | str, *, optional: bool = False) -> dict[str, Any]:
    """Return the entries of a JSON object but for its `format`.

    Args:
        content: What JSON gave.
        form: The format that is read, such as `circuitfind circuit 1`; earlier versions of it are
            read too.
        of: The file, for messages.
        optional: Whether an object without a `format` counts as the first version.

    Raises:
        ValueError: It is not an object of this format.
        NewerFileError: It is of a newer version of this format.
    """
    _require(isinstance(content, dict), "it is not an object")
    _require(optional or "format" in content, "it has no format")
    found = content.get("format", form)
    newest = form.rpartition(" ")[2]
    version = str(found).rpartition(" ")[2]
    known = same_kind(found, form) and version.isdecimal() and version.isascii()
    _require(known, f"its format is {quoted(found)}, not {form!r}")
    if len(version) > len(newest) or int(version) > int(newest):
        raise NewerFileError(
            f"{shortened(str(of))} was written by a newer version of circuitfind (its format is "
            f"{quoted(found)}, and this version reads up to {form!r}); update circuitfind"
        )
    return {name: value for name, value in content.items() if name != "format"}


def same_kind(form: Any, other: str) -> bool:
    """Return whether two formats differ in their version at most."""
    return isinstance(form, str) and form.rpartition(" ")[0] == other.rpartition(" ")[0]


def plain(value: Any) -> Any:
    """Return a value as JSON reads it back: tuples are lists, no number is NaN or infinite."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(kind: Any, value: Any, place: str = "it") -> Any:
    """Return the value of a type that `as_json` has written.

    Args:
        kind: The type.
        value: What JSON gave.
        place: Where the value stands, for messages.

    Raises:
        ValueError: The value is not of the type; the message says where.
    """
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _record(kind, value, place)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union(inner, value, place)
    if origin is tuple:
        return _tuple(inner, value, place)
    if origin in (dict, Mapping):
        _require(isinstance(value, dict), f"{place} is not an object")
        return {name: from_json(inner[1], part, f"{place}.{name}") for name, part in value.items()}
    if origin is Literal:
        _require(
            value in inner, f"{place} is {quoted(value)}, none of {', '.join(map(repr, inner))}"
        )
        return value
    return _single(kind, value, place)


def _record(kind: Any, value: Any, place: str) -> Any:
    _require(isinstance(value, dict), f"{place} is not an object")
    hints, needed = _declared(kind)
    for missing in sorted(needed - set(value))[:1]:
        raise ValueError(f"{place} lacks the field {missing!r}")
    return kind(
        **{
            name: from_json(hint, value[name], f"{place}.{name}")
            for name, hint in hints.items()
            if name in value
        }
    )


@cache
def _declared(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Return a dataclass' fields with their types, and the fields that have no default."""
    hints = get_type_hints(kind)
    needed = [
        item.name
        for item in fields(kind)
        if item.default is MISSING and item.default_factory is MISSING
    ]
    return {item.name: hints[item.name] for item in fields(kind)}, frozenset(needed)


def _union(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """Return a value of one of some types: at most one plain type, one tuple, and None."""
    if value is None and NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    fitting = [kind for kind in kinds if (get_origin(kind) is tuple) == isinstance(value, list)]
    return from_json((fitting or kinds)[0], value, place)


def _tuple(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    _require(isinstance(value, list), f"{place} is not a list")
    each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else list(kinds)
    _require(len(each) == len(value), f"{place} holds {len(value)} values, not {len(each)}")
    return tuple(
        from_json(kind, part, f"{place}[{number}]")
        for number, (kind, part) in enumerate(zip(each, value, strict=True))
    )


def _single(kind: Any, value: Any, place: str) -> Any:
    # JSON writes 1.0 and reads 1; True is no number here.
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    fits = fits and (kind is bool or not isinstance(value, bool))
    _require(fits, f"{place} is {quoted(value)}, not of type {kind.__name__}")
    return _number(value, place) if kind is float else value


def _number(value: int | float, place: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{place} is too large") from None


def _require(condition: bool, complaint: str) -> None:  # noqa: FBT001
    if not condition:
        raise ValueError(complaint)
