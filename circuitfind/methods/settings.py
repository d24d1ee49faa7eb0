"""The settings of a method by name: its own options, and those of the selection that it takes.

A user gives both in one breath (`n_edges=20, steps=5`); runs keep them apart. Earlier versions
stored them together, which `divided` undoes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from circuitfind.errors import MethodError, quoted
from circuitfind.methods import METHODS
from circuitfind.methods.base import Method, ScoringMethod
from circuitfind.methods.selection import Selection

Settings = Mapping[str, Any]

_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
_ANY_THRESHOLD = 1.0


def setting_names(method: Method) -> list[str]:
    """Return the names of all that a method can be given, its own options first."""
    own = [option.name for option in fields(method.options)]
    return [*own, *(name for name in method.selected_by if name not in own)]


def setting_types(method: Method) -> dict[str, Any]:
    """Return the types of all that a method can be given, by name."""
    hints = {**get_type_hints(Selection), **get_type_hints(method.options)}
    return {name: hints[name] for name in setting_names(method)}


def explained(method: Method) -> list[dict[str, Any]]:
    """Return a row for each setting: its name, its default, and what it says."""
    types = (Selection, *reversed(method.options.__mro__))
    texts = {
        name: re.sub(r"\s+", " ", text).strip()
        for kind in types
        for name, text in re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", kind.__doc__ or "", re.M)
    }
    defaults = {each.name: each.default for each in fields(method.options)}
    unset = {name: getattr(method.selection, name) for name in method.selected_by} | defaults
    return [
        {
            "option": name,
            "default": "needed" if unset[name] is MISSING else unset[name],
            "meaning": texts.get(name, ""),
        }
        for name in setting_names(method)
    ]


def divided(
    method: Method | None, options: Settings, selection: Settings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Move what belongs to the selection out of the options.

    Options that the method does not have stay among them, to be refused by `check_settings`.
    """
    own = set() if method is None else {option.name for option in fields(method.options)}
    taken = set() if method is None else set(method.selected_by) - own
    return (
        {name: value for name, value in options.items() if name not in taken},
        {**selection, **{name: value for name, value in options.items() if name in taken}},
    )


def threshold_name(method: Method) -> str | None:
    """Return the name of the setting that holds a method's threshold, if it has one."""
    return "threshold" if isinstance(method, ScoringMethod) else method.option_for("threshold")


def threshold_is_needed(method: Method) -> bool:
    """Return whether a method cannot search without a threshold."""
    name = method.option_for("threshold")
    return any(each.name == name and each.default is MISSING for each in fields(method.options))


def settings_apart_from_seed(origin: Settings) -> dict[str, Any]:
    """Return the settings of the method that a circuit's origin names, without its seed."""
    known = METHODS.get(origin.get("method"))
    seed = None if known is None else known.option_for("seed")
    given = {**(origin.get("selection") or {}), **(origin.get("options") or {})}
    return {name: value for name, value in given.items() if name != seed}


def size_asked(method: str, options: Settings | None, selection: Settings | None) -> dict[str, Any]:
    """Return the threshold and the number of edges that were given, by name."""
    known = METHODS.get(method)
    options, selection = divided(known, options or {}, selection or {})
    name = known and threshold_name(known)
    threshold = {**selection, **options}.get(name) if name else None
    asked = {"threshold": threshold, "n_edges": selection.get("n_edges")}
    return {name: value for name, value in asked.items() if value is not None}


def settled(
    method: Method, options: Settings, selection: Settings | None = None
) -> tuple[Any, Selection]:
    """Return a method's options and its selection; either may be given among the options.

    Raises:
        CircuitfindError: One of them is impossible.
    """
    options, selection = divided(method, options, selection or {})
    return method.options(**options), selection_of(method, selection)


def selection_of(method: Method, given: Settings) -> Selection:
    """Return a method's selection with these fields.

    Raises:
        MethodError: The fields exclude one another, or one is needed that is not given.
        LimitError: A number is outside its range.
    """
    unset = {name: getattr(method.selection, name) for name in method.selected_by}
    selection = Selection(**{**unset, **given})
    if isinstance(method, ScoringMethod) and not method.says_how_many and not selection.given:
        raise MethodError(
            "give one of a number of edges, a threshold and a target faithfulness, not none"
        )
    return selection


def fields_of(method: Method, selection: Selection) -> dict[str, Any]:
    """Return the fields of a whole selection that a method takes.

    Raises:
        MethodError: Another field is given, or it is not a selection.
    """
    given: object = selection
    if not isinstance(given, Selection):
        raise MethodError(f"{quoted(given)} is not a selection; give a `Selection`")
    values = asdict(given)
    for name, value in values.items():
        if name not in method.selected_by and value != getattr(Selection(), name):
            raise _unknown(method, name)
    return {name: values[name] for name in method.selected_by}


def check_settings(
    method: str, options: Settings, selection: Settings, *, any_threshold: bool = False
) -> None:
    """Refuse settings that a method does not have, or whose values are impossible.

    Args:
        method: Name of the method.
        options: Its own options.
        selection: How edges are chosen.
        any_threshold: Whether the threshold is found later, so that it is not asked for.

    Raises:
        MethodError: The method or an option is unknown, or a value is impossible.
        LimitError: A number is outside its range.
    """
    found = METHODS.find(method)
    known = {option.name: option.default is MISSING for option in fields(found.options)}
    unknown = [name for name in options if name not in known]
    unknown += [name for name in selection if name not in found.selected_by]
    if unknown:
        raise _unknown(found, unknown[0])
    if any_threshold and (name := threshold_name(found)) is not None:
        options, selection = divided(found, {**options, name: _ANY_THRESHOLD}, selection)
    for name, required in known.items():
        if required and name not in options:
            raise MethodError(
                f"the method {quoted(method)} needs the option {quoted(name)}; give it"
            )
    found.options(**options)
    selection_of(found, selection)


def _unknown(method: Method, name: str) -> MethodError:
    return MethodError(
        f"the method {quoted(method.name)} has no option {quoted(name)}; its options are "
        f"{', '.join(setting_names(method))}"
    )


def completed(
    method: str, options: Settings, selection: Settings, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and the selection with what was not given: the defaults, and the seed."""
    found = METHODS.find(method)
    values = {each.name: each.default for each in fields(found.options)}
    values = {name: value for name, value in values.items() if value is not MISSING}
    if (name := found.option_for("seed")) is not None:
        values[name] = seed
    values |= options
    name = found.option_for("order")
    if name is not None and values.get(name) is not None:
        # What a file of an order says, not where it is: an edited file is another run.
        # Whatever the threshold is, where it is not given yet.
        needed = threshold_name(found) if threshold_is_needed(found) else None
        threshold = {} if needed is None else {needed: _ANY_THRESHOLD}
        order = getattr(found.options(**{**threshold, **values}), name)
        values[name] = order if isinstance(order, str) else list(order)
    unset = {name: getattr(found.selection, name) for name in found.selected_by}
    return values, {**unset, **selection}


def parsed_settings(method: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the settings that some texts, `NAME=VALUE`, give a method.

    Raises:
        MethodError: A text is not `NAME=VALUE`, the method has no such option, the value is not of
            the option's type, or an option is given two values.
    """
    found = METHODS.find(method)
    known = setting_types(found)
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise MethodError(
                f"the option {quoted(text)} has no value; give NAME=VALUE, where NAME is one of "
                f"{', '.join(known)}"
            )
        if name not in known:
            raise _unknown(found, name)
        parsed = _parsed(name, value.strip(), known[name])
        if given.setdefault(name, parsed) != parsed:
            raise MethodError(
                f"the option {quoted(name)} is given as {quoted(given[name])} and as "
                f"{quoted(parsed)}; give it once"
            )
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
