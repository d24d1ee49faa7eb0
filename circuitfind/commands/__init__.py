"""The commands, a file each or for those that belong together, in the order of `--help`."""

from collections.abc import Callable

from circuitfind.commands.bench import bench
from circuitfind.commands.benchmark import benchmark, truth
from circuitfind.commands.certify import certify
from circuitfind.commands.compare import compare
from circuitfind.commands.discover import discover
from circuitfind.commands.dissociate import dissociate
from circuitfind.commands.draw import draw
from circuitfind.commands.evaluate import evaluate
from circuitfind.commands.exchange import export, import_
from circuitfind.commands.families import families
from circuitfind.commands.listing import ablations, inspect, methods, metrics, models, runs, tasks
from circuitfind.commands.mib import mib
from circuitfind.commands.patching import patch, path_patch
from circuitfind.commands.report import report
from circuitfind.commands.rivals import rivals
from circuitfind.commands.roles import roles
from circuitfind.commands.stability import stability
from circuitfind.commands.sweep import sweep
from circuitfind.commands.units import units

COMMANDS: tuple[Callable[..., None], ...] = (
    discover,
    evaluate,
    certify,
    mib,
    stability,
    families,
    rivals,
    sweep,
    benchmark,
    truth,
    draw,
    roles,
    units,
    report,
    compare,
    dissociate,
    patch,
    path_patch,
    export,
    import_,
    runs,
    tasks,
    models,
    methods,
    metrics,
    ablations,
    inspect,
    bench,
)

__all__ = ["COMMANDS"]
