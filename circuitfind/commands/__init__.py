"""The commands, a file each or for those that belong together, in the order of `--help`."""

from collections.abc import Callable

from circuitfind.commands.discover import discover
from circuitfind.commands.draw import draw
from circuitfind.commands.evaluate import evaluate
from circuitfind.commands.listing import inspect, methods, models, tasks
from circuitfind.commands.patching import patch, path_patch

COMMANDS: tuple[Callable[..., None], ...] = (
    discover,
    evaluate,
    draw,
    patch,
    path_patch,
    tasks,
    models,
    methods,
    inspect,
)

__all__ = ["COMMANDS"]
