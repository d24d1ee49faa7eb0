"""The commands, a file each or for those that belong together, in the order of `--help`."""

from collections.abc import Callable

from circuitfind.commands.compare import compare
from circuitfind.commands.discover import discover
from circuitfind.commands.draw import draw
from circuitfind.commands.listing import inspect, methods, metrics, models, tasks
from circuitfind.commands.patching import patch, path_patch

COMMANDS: tuple[Callable[..., None], ...] = (
    discover,
    draw,
    compare,
    patch,
    path_patch,
    tasks,
    models,
    methods,
    metrics,
    inspect,
)

__all__ = ["COMMANDS"]
