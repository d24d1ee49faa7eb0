"""The help of `circuitfind` itself: first steps, and all commands under their headings."""

from itertools import groupby
from typing import Any

from typer.core import TyperGroup

from circuitfind.commands.console import emit

FIRST_STEPS = """\
circuitfind finds, checks and draws the circuits of transformer language models.

Begin with a circuit of an embedded model, which takes seconds and no network:

  circuitfind discover ioi                            find it
  circuitfind report runs/ioi-gpt-4l-acdc             explore it in a browser
  circuitfind evaluate runs/ioi-gpt-4l-acdc --quick   ask how good it is

Then one of a model and prompts of your own:

  circuitfind models                                  what --model takes
  circuitfind tasks                                   what prompts there are
  circuitfind discover my_prompts.jsonl --model DIR   find a circuit on prompts of your own

circuitfind --help lists all commands, circuitfind COMMAND --help explains one, and
circuitfind doctor says what this installation can do.
"""
"""What `circuitfind` says without a command."""


class Commands(TyperGroup):
    """Lists the commands under their headings; without one, says how to begin."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line."""
        if not args and not ctx.resilient_parsing:
            emit(FIRST_STEPS)
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, those of one heading together."""
        width = max(map(len, self.commands))
        for heading, commands in groupby(self.commands.values(), _heading):
            with formatter.section(heading):
                formatter.write_dl(
                    [(str(each.name).ljust(width), _summary(each)) for each in commands]
                )


def _heading(command: Any) -> str:
    return str(command.rich_help_panel)


def _summary(command: Any) -> str:
    """Return the first sentence of a command's help."""
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    return paragraph.removesuffix(".")
