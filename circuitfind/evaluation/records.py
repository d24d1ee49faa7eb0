"""Write nested frozen dataclasses as plain JSON values, and read them back.

Reading checks what it can: every field there, none besides, and numbers where numbers belong.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def as_json(record: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values; a number that is not finite becomes None."""
    plain: dict[str, Any] = _plain(asdict(record))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_json(kind: type[Record], value: Any) -> Record:
    """Return the dataclass that `as_json` has written.

    Raises:
        ValueError: The value is not such a dataclass; the message names the field.
    """
    record: Record = _read(kind, value, kind.__name__)
    return record


def _read(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        return _read_record(kind, value, name)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType or (origin is not None and NoneType in inner):
        if value is None and NoneType in inner:
            return None
        (real,) = (one for one in inner if one is not NoneType)
        return _read(real, value, name)
    if origin is tuple:
        return _read_tuple(inner, value, name)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{name} is {value!r}, none of {', '.join(map(repr, inner))}")
        return value
    return _read_plain(kind, value, name)


def _read_tuple(inner: tuple[Any, ...], value: Any, name: str) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
    if len(kinds) != len(value):
        raise ValueError(f"{name} has {len(value)} entries, not {len(kinds)}")
    return tuple(
        _read(kind, item, f"{name}[{number}]")
        for number, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _read_record(kind: Any, value: Any, name: str) -> Any:
    known = [field.name for field in fields(kind)]
    if not isinstance(value, Mapping) or set(value) != set(known):
        found = sorted(value) if isinstance(value, Mapping) else value
        raise ValueError(f"{name} has the fields {found}, not {sorted(known)}")
    kinds = get_type_hints(kind)
    return kind(**{field: _read(kinds[field], value[field], f"{name}.{field}") for field in known})


def _read_plain(kind: Any, value: Any, name: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r}, not {kind.__name__}")
    return value
