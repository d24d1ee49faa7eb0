"""Options of a method as flags of a command: `--order random` is read as `--option order=random`.

Flags come from the option records of the methods, which are loaded only where a flag is met that
the command does not have, so that `--help` answers at once.
"""

from collections.abc import Iterator
from typing import Any, get_args

from typer.core import TyperCommand


class MethodCommand(TyperCommand):
    """A command with the options `--method` and `--option`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line, flags of the method among them."""
        return super().parse_args(ctx, list(self._translated(args, ctx.help_option_names)))

    def _translated(self, args: list[str], helps: list[str]) -> Iterator[str]:
        own = {flag: each for each in self.params for flag in (*each.opts, *each.secondary_opts)}
        method = _value_of("--method", args) or str(own["--method"].default)
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if word == "--":
                yield word
                yield from words
            elif name in own or name in helps or not word.startswith("--"):
                yield word
                if name in own and not equals and not getattr(own[name], "is_flag", False):
                    yield from _next(words)
            elif (setting := _setting(method, name)) is None:
                yield word
            elif setting[1] is not None and not equals:
                yield from ("--option", f"{setting[0]}={setting[1]}")
            elif setting[1] == "false":
                yield word
            else:
                given = [value] if equals else list(_next(words))
                yield from ("--option", "=".join((setting[0], *given)))


def _next(words: Iterator[str]) -> Iterator[str]:
    """Yield the next word, if there is one."""
    for word in words:
        yield word
        return


def _value_of(flag: str, args: list[str]) -> str | None:
    for word, following in zip(args, [*args[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == flag:
            return value if equals else following
    return None


def _setting(method: str, flag: str) -> tuple[str, str | None] | None:
    """Return the setting of a method that a flag sets, and to what, if the flag itself says that.

    Settings of other methods are known as well, so that they are refused by name.
    """
    from circuitfind.methods import METHODS
    from circuitfind.methods.settings import setting_types

    name = flag.removeprefix("--").replace("-", "_")
    for known in sorted(METHODS, key=lambda each: each.name != method):
        types = setting_types(known)
        if name in types:
            return name, "true" if _is_flag(types[name]) else None
        positive = name.removeprefix("no_")
        if _is_flag(types.get(positive)):
            return positive, "false"
    return None


def _is_flag(kind: Any) -> bool:
    return bool in (kind, *get_args(kind))
