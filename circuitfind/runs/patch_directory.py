"""The directory of a measurement by patching, safe against interruption.

`config.json` says what is measured and is written first; `state.safetensors` holds what an
interruption left; `environment.json` says where and how long
it ran; `patching.safetensors` and `patching.json` hold the measurement, once it is
complete. What follows from it can be made anew with another threshold: the report, the heatmaps
and, if it was asked for, the circuit. `report.json` is written last and says what it was made with.
Each file is written in one step. While a process works in a directory, others are refused.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circuitfind.errors import CircuitfindError, RunDirectoryError, quoted
from circuitfind.files import write_whole
from circuitfind.patching.files import load_patching, to_bytes, to_json
from circuitfind.patching.result import PatchResult
from circuitfind.runs.config import environment
from circuitfind.runs.directory import (
    ENVIRONMENT,
    STATE,
    discard,
    held,
    make_folder,
    read_json,
    reported,
)

CONFIG, RESULT, TENSORS = "config.json", "patching.json", "patching.safetensors"
REPORT, TEXT, TABLE, CIRCUIT = "report.json", "report.md", "patches.csv", "circuit.json"
_DRAWN = ("diagram.svg", "diagram.dot")
_NAMES = {CONFIG, ENVIRONMENT, RESULT, TENSORS, REPORT, TEXT, TABLE, CIRCUIT, STATE, *_DRAWN}


class PatchDirectory:
    """The directory of one measurement.

    Attributes:
        path: Where it is.
        settings: What is measured, as plain JSON values.

    Raises:
        RunDirectoryError: The directory holds another measurement or something else.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        with reported(path):
            self._require_same()

    def _require_same(self) -> None:
        path = self.path
        if not (path / CONFIG).is_file():
            if path.exists() and not (path.is_dir() and all(map(_is_ours, path.iterdir()))):
                raise RunDirectoryError(
                    f"{path} exists and is no directory of patching; choose another --out"
                )
            return
        there = self._began_with("settings")
        different = [name for name in self.settings if there.get(name) != self.settings[name]]
        if different:
            name = different[0]
            raise RunDirectoryError(
                f"{path} holds another measurement ({name} is {quoted(there.get(name))} there and "
                f"{quoted(self.settings[name])} here); choose another --out, or repeat the "
                "original "
                "settings"
            )

    def _began_with(self, name: str) -> Mapping[str, Any]:
        stored = read_json(self.path / CONFIG)
        if not (isinstance(stored, dict) and isinstance(stored.get(name), dict)):
            raise RunDirectoryError(
                f"{self.path}/config.json is damaged (it has no {quoted(name)}); choose another "
                "--out, or delete the directory to begin again"
            )
        found: Mapping[str, Any] = stored[name]
        return found

    def result(self) -> PatchResult | None:
        """Return the measurement if it is complete.

        Raises:
            ResultFileError: It is damaged.
        """
        begun = (self.path / CONFIG).is_file() and (self.path / RESULT).is_file()
        return load_patching(self.path / RESULT) if begun else None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Make the directory and keep others out.

        If an error ends a new measurement before its first checkpoint, nothing is left behind.

        Raises:
            RunDirectoryError: It cannot be written, or another process is at work in it.
        """
        with reported(self.path):
            made = make_folder(self.path)
        try:
            with held(self.path):
                # Again, now that nobody else writes here: another process may have begun another.
                self._require_same()
                yield
        except CircuitfindError:
            if made and not any((self.path / name).exists() for name in (STATE, TENSORS)):
                discard(self.path, made)
            raise

    def begin(self, facts: Mapping[str, str]) -> None:
        """Write down what is measured, or check that the measurement began with the same.

        Args:
            facts: What must be the same when it is resumed: the fingerprints of the model's
                weights and of the prompts.

        Raises:
            RunDirectoryError: It began with other weights or prompts.
        """
        if not (self.path / CONFIG).is_file():
            content = {"settings": self.settings, "facts": facts, "versions": environment()}
            self.write(CONFIG, json.dumps(content, indent=1) + "\n")
        self._require_unchanged(facts)

    def _require_unchanged(self, facts: Mapping[str, str]) -> None:
        there = self._began_with("facts")
        if changed := [name for name, value in facts.items() if there.get(name) != value]:
            parts = " and the ".join(name.removesuffix("_fingerprint") for name in changed)
            raise RunDirectoryError(
                f"the {parts} of the measurement in {self.path} changed since it began; choose "
                "another --out, or restore what it began with"
            )

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file in one step.

        Raises:
            RunDirectoryError: It cannot be written; what was there before is still there.
        """
        with reported(self.path):
            write_whole(self.path / name, content)

    def write_environment(self, device: str, seconds: float) -> None:
        """Write down where and how long the measurement ran, which no other file holds."""
        content = {**environment(), "device": device, "seconds": round(seconds, 3)}
        self.write(ENVIRONMENT, json.dumps(content, indent=1) + "\n")

    def write_result(self, result: PatchResult) -> None:
        """Write the complete measurement."""
        self.write(TENSORS, to_bytes(result))
        # Written second: where it exists, the tensors do.
        self.write(RESULT, to_json(result))

    def report(self, made_with: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what the report says, if there is one that was made with these settings."""
        if not (self.path / REPORT).is_file():
            return None
        stored = read_json(self.path / REPORT)
        same = isinstance(stored, dict) and stored.get("made_with") == dict(made_with)
        return stored if same else None

    def drop_report(self) -> None:
        """Remove what an earlier report consisted of."""
        # The report first: where it exists, everything that it speaks of does.
        for name in (REPORT, CIRCUIT, *_DRAWN):
            with reported(self.path):
                (self.path / name).unlink(missing_ok=True)


def _is_ours(file: Path) -> bool:
    """Tell whether a file may be what an interrupted write left."""
    is_heatmap = file.name.startswith("heatmap-") and file.suffix in (".svg", ".png")
    return file.name in _NAMES or is_heatmap or (file.name[0] == "." and file.suffix == ".tmp")
