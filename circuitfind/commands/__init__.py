"""The commands, a file each or for those that belong together, sorted into sections."""

from collections.abc import Callable

from circuitfind.commands.bench import bench
from circuitfind.commands.benchmark import benchmark, truth
from circuitfind.commands.certify import certify
from circuitfind.commands.compare import compare
from circuitfind.commands.discover import discover
from circuitfind.commands.dissociate import dissociate
from circuitfind.commands.doctor import doctor
from circuitfind.commands.draw import draw
from circuitfind.commands.evaluate import evaluate
from circuitfind.commands.exchange import export, import_, publish
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

SECTIONS: dict[str, tuple[Callable[..., None], ...]] = {
    "Find circuits": (discover, sweep, patch, path_patch),
    "Look at a circuit": (report, draw, roles, units),
    "Judge a circuit": (evaluate, certify, stability, rivals, families),
    "Compare circuits": (compare, dissociate),
    "Compare methods": (mib, benchmark, truth),
    "Exchange": (export, publish, import_),
    "What there is": (runs, tasks, models, methods, metrics, ablations, inspect, bench, doctor),
}
"""The commands under their headings, in the order of `--help`."""

COMMANDS = tuple(command for section in SECTIONS.values() for command in section)

__all__ = ["COMMANDS", "SECTIONS"]
