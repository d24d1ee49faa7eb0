"""The directory of a measurement by patching, safe against interruption.

`config.json` says what is measured and is written first; `state.safetensors` holds what an
interruption left; `environment.json` says where and how long it ran; `patching.safetensors` and
`patching.json` hold the measurement, once it is complete. What follows from it can be made anew
with another threshold: the report, the heatmaps and, if it was asked for, the circuit.
`report.json` is written last and says what it was made with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuitfind.directories.patch_config import DEFAULT_REPORT, PatchConfig
from circuitfind.directories.work import CIRCUIT, CONFIG, ENVIRONMENT, WorkDirectory
from circuitfind.patching.files import load_patching, to_bytes, to_json
from circuitfind.patching.result import PatchResult
from circuitfind.store import STATE, read_json, reported

RESULT, TENSORS = "patching.json", "patching.safetensors"
REPORT, TEXT, TABLE = "report.json", "report.md", "patches.csv"
_DRAWN = ("diagram.svg", "diagram.dot")
_NAMES = {CONFIG, ENVIRONMENT, RESULT, TENSORS, REPORT, TEXT, TABLE, CIRCUIT, STATE, *_DRAWN}


class PatchDirectory(WorkDirectory[PatchConfig]):
    """The directory of one measurement."""

    kind = PatchConfig
    lasting = (STATE, TENSORS)

    @property
    def is_complete(self) -> bool:
        has_report = self.report(self.config.report_settings) is not None
        return has_report and (self.path / RESULT).is_file()

    @classmethod
    def is_ours(cls, file: Path) -> bool:
        is_heatmap = file.name.startswith("heatmap-") and file.suffix in (".svg", ".png")
        return super().is_ours(file) or file.name in _NAMES or is_heatmap

    def result(self) -> PatchResult | None:
        """Return the measurement if it is complete.

        Raises:
            ResultFileError: It is damaged.
        """
        begun = (self.path / CONFIG).is_file() and (self.path / RESULT).is_file()
        return load_patching(self.path / RESULT) if begun else None

    def write_environment(self, device: str, seconds: float) -> None:
        """Write down where and how long the measurement ran."""
        found = {"device": device, "seconds": round(seconds, 3)}
        content = {**read_json(self.path / ENVIRONMENT), **found}
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
        there = stored.get("made_with") if isinstance(stored, dict) else None
        same = isinstance(there, dict) and {**DEFAULT_REPORT, **there} == dict(made_with)
        return stored if same else None

    def drop_report(self) -> None:
        """Remove what an earlier report consisted of."""
        # The report first: where it exists, everything that it speaks of does.
        for name in (REPORT, CIRCUIT, *_DRAWN):
            with reported(self.path):
                (self.path / name).unlink(missing_ok=True)
