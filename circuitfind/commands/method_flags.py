"""Options of a method as flags of a command: `--order random` is `--option order=random`.

Flags come from the option records of all methods, so that one of another method is refused by name.
They are loaded only where a flag is met that the command does not have, so that `--help` answers at
once.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import Parameter, Signature
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from typer.core import TyperCommand

from circuitfind.plugins import VARIABLE


class Command(TyperCommand):
    """A command with `--plugin`, that takes no option for the value of the option before it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters; `--plugin` stands before `--help`."""
        *params, last = super().get_params(ctx)
        return [*params, *_plugin_option(), last]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Load the plug-ins that the words of the command line name, and read the words.

        Raises:
            PluginError: A plug-in cannot be loaded.
        """
        if not ctx.resilient_parsing:
            _load_plugins(args)
        rest = self.read_words(ctx, args)
        ctx.params.pop("plugin", None)
        return rest

    def read_words(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line.

        Raises:
            BadParameter: An option has another option in the place of its value.
        """
        given, *_ = self.make_parser(ctx).parse_args(list(args))
        for param in self.get_params(ctx):
            values = given.get(param.name) if param.param_type_name == "option" else None
            for value in values if isinstance(values, list) else [values]:
                if str(value).startswith("--"):
                    raise typer.BadParameter(
                        f"{value} is an option; give a value before it",
                        ctx=ctx,
                        param=cast(Any, param),
                    )
        return super().parse_args(ctx, args)


def _load_plugins(args: Sequence[str]) -> None:
    """Load what `--plugin` names: its methods may have options among the other words."""
    values = [word.partition("=")[2] for word in args if word.startswith("--plugin=")]
    values += [
        after for word, after in pairwise(args) if word == "--plugin" and not after.startswith("--")
    ]
    if not values and VARIABLE not in os.environ:
        return
    from circuitfind.plugins import load_named, load_plugin

    load_named()
    for value in values:
        load_plugin(value)


class MethodCommand(Command):
    """A command with the option `--option`, and every setting of a method as a flag of its own."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, the methods' settings among them once one is met."""
        return [*super().get_params(ctx), *ctx.meta.get(__name__, ())]

    def read_words(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line; settings become values of `--option`."""
        own = {flag for param in self.get_params(ctx) for flag in param.opts}
        met = {word.partition("=")[0] for word in args if word.startswith("--")}
        settings = ctx.meta[__name__] = _settings(own) if met - own else []
        rest = super().read_words(ctx, args)
        for setting in settings:
            value = ctx.params.pop(setting.name)
            if value is not None:
                given = f"{setting.name.removeprefix(_PREFIX)}={value}"
                ctx.params["option"] = [*(ctx.params["option"] or ()), given]
        return rest


_PREFIX = "setting_"
"""Keeps the names of settings apart from those of the command's own parameters."""


def _settings(taken: set[str]) -> list[Any]:
    """Return an option for each setting of a method but those whose flags are taken."""
    from circuitfind.methods import METHODS
    from circuitfind.methods.settings import setting_types

    types = {name: kind for each in METHODS for name, kind in setting_types(each).items()}
    kinds: dict[str, Any] = {}
    for name, kind in types.items():
        flags = flags_of(name, kind)
        if flags.partition(" / ")[0] not in taken:
            given: Any = bool | None if " / " in flags else str | None
            kinds[f"{_PREFIX}{name}"] = Annotated[given, typer.Option(flags)]

    return _declared(kinds)


@cache
def _plugin_option() -> tuple[Any, ...]:
    text = "Python file that adds methods, tasks, metrics, ...; it is run. Can be repeated."
    return tuple(_declared({"plugin": Annotated[list[Path] | None, typer.Option(help=text)]}))


def _declared(kinds: Mapping[str, Any]) -> list[Any]:
    """Return options of these types, which are None where they are not given."""

    def declared() -> None:
        """Carry the options as parameters."""

    declared.__annotations__ = dict(kinds)
    declared.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in kinds.items()
        ]
    )
    app = typer.Typer(add_completion=False)
    app.command()(declared)
    return list(typer.main.get_command(app).params)


def flags_of(name: str, kind: Any) -> str:
    """Return the flags of a setting of some type: `--order`, or `--absolute / --no-absolute`."""
    words = name.replace("_", "-")
    return f"--{words} / --no-{words}" if bool in (kind, *get_args(kind)) else f"--{words}"
