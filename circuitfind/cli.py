"""The command line: the table of commands, and how a command ends.

Results go to stdout, everything else to stderr. An error that the user can act on is one line and
exit code 2. Heavy imports sit inside the commands, so that `--help` answers at once.
"""

from typing import Annotated

import typer

from circuitfind.commands import SECTIONS
from circuitfind.commands.console import quieten_libraries, run_app, show_version
from circuitfind.commands.discover import discover
from circuitfind.commands.help import Commands
from circuitfind.commands.method_flags import Command, MethodCommand
from circuitfind.commands.mib import mib
from circuitfind.threads import wait_a_moment

app = typer.Typer(
    name="circuitfind",
    cls=Commands,
    help="Find, check and draw the circuits of transformer language models.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=show_version)
    ] = False,
) -> None:
    pass


for heading, commands in SECTIONS.items():
    for command in commands:
        name = command.__name__.strip("_").replace("_", "-")
        kind = MethodCommand if command in (discover, mib) else Command
        app.command(name, cls=kind, rich_help_panel=heading)(command)


def main() -> None:
    """Run the command; see `circuitfind.commands.console.run_app` for how it ends."""
    wait_a_moment()
    quieten_libraries()
    raise SystemExit(run_app(app))
