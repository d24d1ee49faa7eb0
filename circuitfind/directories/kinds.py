"""Kinds of directories: a search, a measurement by patching, or a circuit alone."""

from pathlib import Path
from typing import Literal

from circuitfind.directories.config import RunConfig
from circuitfind.directories.patch_config import PatchConfig
from circuitfind.directories.work import CIRCUIT, CONFIG
from circuitfind.errors import RunDirectoryError
from circuitfind.files import read_bytes
from circuitfind.records import parse_json, same_kind

Kind = Literal["search", "patching", "circuit", "other"]
"""What a directory holds: a search, a measurement by patching, a circuit alone, or none of them."""


def content_kind(path: Path) -> Kind:
    """Return what a directory of ours holds; one with damaged settings counts as a search."""
    if not (path / CONFIG).is_file():
        return "circuit" if (path / CIRCUIT).is_file() else "other"
    try:
        stored = parse_json(read_bytes(path / CONFIG))
    except (OSError, ValueError):
        return "search"
    if not isinstance(stored, dict):
        return "search"
    # Version 0.1.0 named no format.
    form = stored.get("format", PatchConfig.form if "settings" in stored else RunConfig.form)
    if same_kind(form, PatchConfig.form):
        return "patching"
    return "search" if same_kind(form, RunConfig.form) else "other"


def require_search(path: Path) -> None:
    """Refuse a directory that holds anything but a search.

    Raises:
        RunDirectoryError: The message says what it holds instead.
    """
    held_there = {
        "patching": "a measurement by patching",
        "circuit": "a circuit without the search that found it",
        "other": "no run",
    }
    if (kind := content_kind(path)) != "search":
        raise RunDirectoryError(
            f"{path} holds {held_there[kind]}; give the directory of `circuitfind discover` "
            "(`draw`, `evaluate`, `compare`, `report` and `export` take any circuit)"
        )
