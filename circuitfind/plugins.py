"""Plug-ins: Python files of the user's own that add entries to the tables.

    circuitfind discover ioi --method mine --plugin my_method.py

The file is a program that adds what it defines: `METHODS.add(MINE)`. **It is code, and runs with
all rights of whoever names it.** So only a user names one: by `--plugin`, in a sweep file, or in
the variable CIRCUITFIND_PLUGINS, through which the workers of a command have the same ones. Runs
and circuits say by name and hash which were loaded when they were made; they never load one.
"""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from circuitfind.errors import CircuitfindError, PluginError, quoted, shortened
from circuitfind.files import path_of, read_bytes
from circuitfind.registry import ADDED, EXPECTED

VARIABLE = "CIRCUITFIND_PLUGINS"
_LARGEST = 10**7
_PREFIX = "circuitfind_plugin_"
_FACT = "plug-in "


@dataclass(frozen=True)
class Plugin:
    """A file that was loaded.

    Attributes:
        path: Where it is.
        sha256: Hash of its content.
        adds: What it added to the tables: `method mine`.
    """

    path: Path
    sha256: str
    adds: tuple[str, ...]


_LOADED: dict[str, Plugin] = {}
"""By the names of their modules."""


def load_plugin(path: Path | str) -> Plugin:
    """Run a Python file that adds entries to the tables; one that was loaded is not run again.

    Raises:
        PluginError: It cannot be read, fails, adds nothing, or another file of its name was loaded.
    """
    path = path_of(path)
    if os.pathsep in str(path):
        raise PluginError(
            f"the path of the plug-in {quoted(str(path))} has a {os.pathsep!r}; rename the file"
        )
    try:
        content = read_bytes(path, most=_LARGEST)
    except OSError as error:
        raise PluginError(
            f"cannot read the plug-in {quoted(str(path))}: {error.strerror}; give a Python file"
        ) from None
    # A name of a module, under which workers find it.
    name, sha256 = _PREFIX + re.sub(r"\W", "_", path.stem), hashlib.sha256(content).hexdigest()
    if (there := _LOADED.get(name)) is not None:
        _require_same(there, path, sha256)
        return there
    before = len(ADDED)
    try:
        _run(path.resolve(), name, content)
    except PluginError:
        for table, added in ADDED[before:]:
            table.take_back(added)
        del ADDED[before:]
        raise
    adds = tuple(f"{table.what} {added}" for table, added in ADDED[before:])
    EXPECTED.pop(path.name, None)
    if not adds:
        raise PluginError(
            f"the plug-in {quoted(str(path))} adds nothing; let it call METHODS.add(...), or add "
            "to another table (docs/extending.md)"
        )
    _LOADED[name] = Plugin(path.resolve(), sha256, adds)
    named = [str(each.path) for each in _LOADED.values()]
    os.environ[VARIABLE] = os.pathsep.join(named)
    return _LOADED[name]


def _require_same(there: Plugin, path: Path, sha256: str) -> None:
    """Refuse another plug-in of the name of one that was loaded."""
    if there.sha256 == sha256:
        return
    if there.path == path.resolve():
        raise PluginError(
            f"the plug-in {quoted(str(path))} was changed after it was loaded; start Python anew"
        )
    raise PluginError(
        f"the plug-ins {quoted(str(there.path))} and {quoted(str(path))} have the same name; "
        "rename one of them"
    )


def _run(path: Path, name: str, content: bytes) -> None:
    module = ModuleType(name)
    module.__file__ = str(path)
    # What the file defines is found under this name, by dataclasses and in workers.
    sys.modules[name] = module
    try:
        # What it prints is no result of the command.
        with redirect_stdout(sys.stderr):
            exec(compile(content, str(path), "exec"), module.__dict__)
    # Whatever the file raises, also where it ends the program.
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(
            f"the plug-in {quoted(str(path))} cannot be loaded ({_reason(error, path)}); mend it, "
            "or leave it out"
        ) from error


def _reason(error: BaseException, path: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == str(path)]  # fmt: skip
    number = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    said = str(error) if isinstance(error, CircuitfindError) else f"{type(error).__name__}: {error}"
    return f"line {number}: {shortened(said)}" if number else shortened(said)


def load_named() -> None:
    """Load the plug-ins that the variable CIRCUITFIND_PLUGINS names.

    Raises:
        PluginError: As `load_plugin`.
    """
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        load_plugin(path)


def plugin_facts() -> dict[str, str]:
    """Return names and hashes of the plug-ins that were loaded, as results state them."""
    return {f"{_FACT}{each.path.name}": f"sha256:{each.sha256}" for each in _LOADED.values()}


def facts_in(versions: object) -> dict[str, Any]:
    """Return the plug-ins that a result was made with, from what its file says of versions."""
    known = versions if isinstance(versions, Mapping) else {}
    return {name: value for name, value in known.items() if name.startswith(_FACT)}


def expect(versions: object) -> None:
    """Note the plug-ins that a result was made with, for the message where one is missed."""
    here = plugin_facts()
    for name in facts_in(versions):
        if name not in here:
            EXPECTED[name.removeprefix(_FACT)] = None
