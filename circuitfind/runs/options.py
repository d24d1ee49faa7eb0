"""Options of methods as text, `NAME=VALUE`, read by the types that the method declares."""

from collections.abc import Sequence
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from circuitfind.errors import MethodError, quoted
from circuitfind.methods import find_method

_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def parsed_options(method: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the options that some texts give a method.

    Raises:
        MethodError: A text is not `NAME=VALUE`, the method has no such option, or the value is not
            of the option's type.
    """
    options = find_method(method).options
    hints, known = get_type_hints(options), [option.name for option in fields(options)]
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in known:
            raise MethodError(
                f"{quoted(text)} is no option of the method {quoted(method)}; give NAME=VALUE, "
                "where NAME is "
                f"one of {', '.join(known)}"
            )
        given[name] = _parsed(name, value.strip(), hints[name])
    return given


def _parsed(name: str, value: str, hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] or [hint]
    if get_origin(hint) is Literal or any(get_origin(kind) is Literal for kind in kinds):
        return value
    for kind in kinds:
        try:
            return _BOOLEANS[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            continue
    expected = " or ".join(kind.__name__ for kind in kinds)
    raise MethodError(
        f"the option {quoted(name)} is of type {expected}, which {quoted(value)} is not"
    )
