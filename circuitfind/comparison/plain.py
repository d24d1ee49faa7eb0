"""From plain JSON values to frozen dataclasses, refusing whatever is not of the declared type."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def from_plain(kind: Any, value: Any, place: str = "it") -> Any:
    """Return a value of a type made of dataclasses, tuples, mappings, unions and plain values.

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
        return _dataclass(kind, value, place)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _either(inner, value, place)
    if origin is tuple:
        _require(isinstance(value, list), f"{place} is no list")
        return _tuple(inner, value, place)
    if origin in (dict, Mapping):
        _require(isinstance(value, dict), f"{place} is no object")
        return {name: from_plain(inner[1], part, f"{place}.{name}") for name, part in value.items()}
    return _single(kind, value, place)


def _dataclass(kind: Any, value: Any, place: str) -> Any:
    _require(isinstance(value, dict), f"{place} is no object")
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(set(value) - set(known))
    _require(not unknown, f"{place} has an unknown field {unknown[:1]}")
    needed = {
        name
        for name, item in known.items()
        if item.default is MISSING and item.default_factory is MISSING
    }
    missing = sorted(needed - set(value))
    _require(not missing, f"{place} lacks the field {missing[:1]}")
    return kind(
        **{name: from_plain(hints[name], part, f"{place}.{name}") for name, part in value.items()}
    )


def _either(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))
    return from_plain(kind, value, place)


def _tuple(inner: tuple[Any, ...], value: list[Any], place: str) -> tuple[Any, ...]:
    if inner[-1] is Ellipsis:
        return tuple(from_plain(inner[0], part, f"{place}[{i}]") for i, part in enumerate(value))
    _require(len(inner) == len(value), f"{place} holds {len(value)} values, not {len(inner)}")
    return tuple(
        from_plain(kind, part, f"{place}[{i}]")
        for i, (kind, part) in enumerate(zip(inner, value, strict=True))
    )


def _single(kind: Any, value: Any, place: str) -> Any:
    # JSON writes 1.0 and reads 1; True is no number here.
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    fits = fits and (kind is bool or not isinstance(value, bool))
    _require(fits, f"{place} is {value!r}, not of type {kind.__name__}")
    return float(value) if kind is float else value


def _require(condition: bool, complaint: str) -> None:  # noqa: FBT001
    if not condition:
        raise ValueError(complaint)
