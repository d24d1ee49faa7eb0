"""The command `doctor`: what this installation has, and what is missing for what."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, Literal

import typer

from circuitfind.commands.console import print_json, print_table
from circuitfind.commands.options import Json
from circuitfind.environment import PACKAGES, version_of
from circuitfind.errors import CircuitfindError
from circuitfind.registry import Table

_EXTRAS = {
    "gguf": "models in GGUF files, and `circuitfind models get`",
    "tables": "`to_frame()` in Python, and parquet files of sweeps",
    "ray": "`sweep --ray`: workers on several machines",
}
"""What each extra of the package is for."""


@dataclass(frozen=True)
class Finding:
    """Something that was looked for.

    Attributes:
        what: What it is.
        state: `ok`; `missing`, which leaves something undone; or `broken`, which needs mending.
        found: What there is.
        advice: What is not possible, and what to do about it.
    """

    what: str
    state: Literal["ok", "missing", "broken"]
    found: str
    advice: str = ""


def doctor(as_json: Json = False) -> None:
    """Say what is installed, what the machine has, and which features lack something.

    Ends with exit code 1 if something is broken, and 0 if all works or only extras are missing.
    """
    findings = list(_findings())
    if as_json:
        print_json([asdict(each) for each in findings])
    else:
        from circuitfind.reports.terminal import listing

        rows = [(each.what, each.state, _line(each)) for each in findings]
        print_table(listing(("what", "state", "found"), rows))
    if any(each.state == "broken" for each in findings):
        raise typer.Exit(1)


def _line(finding: Finding) -> str:
    return "; ".join(text for text in (finding.found, finding.advice) if text)


def _findings() -> Iterator[Finding]:
    searches: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("installation", _packages),
        ("device", _device),
        ("memory", _memory),
        ("Graphviz", _drawing),
        ("models", _pretrained),
        ("extras", _extras),
        ("plug-ins", _plugins),
    )
    for what, search in searches:
        try:
            yield from search()
        # Whatever a library that is broken raises.
        except Exception as error:  # noqa: BLE001
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Finding(what, "broken", said, "install circuitfind again with pip")


def _packages() -> Iterator[Finding]:
    """Yield each package that circuitfind needs; one counts as broken if it cannot be imported."""
    python = f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    yield Finding("Python", "ok", python)
    for name in PACKAGES:
        found = version_of(name) or "not installed"
        try:
            module = import_module(name)
        # Whatever a library that is broken raises.
        except Exception as error:  # noqa: BLE001
            said = f"{found}, which cannot be imported ({type(error).__name__}: {error})"
            yield Finding(name, "broken", said.splitlines()[0], "install it again with pip")
            continue
        place = f" at {Path(str(module.__file__)).parent}" if name == "circuitfind" else ""
        yield Finding(name, "ok", f"{found}{place}")


def _device() -> Iterator[Finding]:
    import torch

    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    if not torch.cuda.is_available():
        yield Finding("device", "ok", f"cpu, {threads}; no CUDA device for --device cuda")
        return
    names = {torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())}
    yield Finding("device", "ok", f"cpu, {threads}; cuda: {', '.join(sorted(names))}")


def _memory() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    texts = [f"{_gigabytes(free)} free on disk here"]
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        texts.insert(0, f"{_gigabytes(pages * size)} of memory")
    except (AttributeError, ValueError, OSError):
        # Not every system says how much there is.
        pass
    yield Finding("memory", "ok", ", ".join(texts))


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def _drawing() -> Iterator[Finding]:
    from circuitfind.errors import ReportError
    from circuitfind.reports.rendering import programs, render

    found = ", ".join(programs())
    try:
        render("digraph { a -> b }", "svg")
    except ReportError as error:
        yield Finding("Graphviz", "broken", found, str(error))
    else:
        yield Finding("Graphviz", "ok", found)


def _pretrained() -> Iterator[Finding]:
    from circuitfind.models.pretrained import PRETRAINED

    for model in PRETRAINED:
        if model.path.is_file():
            yield Finding(f"model {model.name}", "ok", str(model.path))
        else:
            advice = f"circuitfind models get {model.name} downloads it to {model.path.parent}"
            yield Finding(f"model {model.name}", "missing", "", advice)


def _extras() -> Iterator[Finding]:
    for extra, purpose in _EXTRAS.items():
        needed = _needed(extra)
        found = {name: version_of(name) for name in needed}
        if found and all(found.values()):
            texts = [f"{name} {number}" for name, number in found.items()]
            yield Finding(f"extra {extra}", "ok", ", ".join(texts))
        else:
            advice = f"for {purpose}: pip install 'circuitfind[{extra}]'"
            yield Finding(f"extra {extra}", "missing", "", advice)


def _needed(extra: str) -> list[str]:
    """Return the packages of an extra, as the installed package names them."""
    try:
        every = requires("circuitfind") or ()
    except PackageNotFoundError:
        return []
    lines = [line for line in every if f'extra == "{extra}"' in line]
    return [line.partition(";")[0].split(">=")[0].strip() for line in lines]


def _plugins() -> Iterator[Finding]:
    for table in _tables():
        for name, package in table.offered():
            try:
                table.find(name)
            except CircuitfindError as error:
                yield Finding(f"{table.what} {name}", "broken", package, str(error))
            else:
                yield Finding(f"{table.what} {name}", "ok", f"of {package}")
        for clash in table.clashes():
            yield Finding(f"{table.what}s", "broken", "", clash)


def _tables() -> tuple[Table[Any], ...]:
    """Return the tables that installed packages may add to."""
    from circuitfind.ablations import ABLATIONS
    from circuitfind.dictionaries.loading import FORMATS as DICTIONARY_FORMATS
    from circuitfind.formats import FORMATS
    from circuitfind.methods import METHODS
    from circuitfind.metrics import METRICS
    from circuitfind.models.pretrained import PRETRAINED
    from circuitfind.models.sources import MODEL_SOURCES
    from circuitfind.tasks import TASKS

    tables = (METHODS, TASKS, METRICS, ABLATIONS, MODEL_SOURCES, PRETRAINED, FORMATS)
    return (*tables, DICTIONARY_FORMATS)
