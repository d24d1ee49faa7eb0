"""Settings of the work in a directory, as plain values in one versioned file.

Whatever works in a directory (`directories.work.WorkDirectory`) writes its settings first. When the
command is repeated, the settings that fix the result must be the same.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

from circuitfind.records import as_json

Asked = TypeVar("Asked", bound="Settings")

_DIGESTS = {
    "task_digest": "the task's file has changed since",
    "ablation_digest": "the file of constants has changed since",
    "text_digest": "the text is not the same",
}


@dataclass(frozen=True)
class Settings:
    """Settings of the work in a directory."""

    form: ClassVar[str]
    """The `format` that the file of these settings states; that of 0.1.0 states none, and is read
    too."""

    noun: ClassVar[str]
    """What the work is called in messages."""

    incidental: ClassVar[frozenset[str]] = frozenset()
    """Fields that are stored, and in which the same work may differ."""

    of_the_report: ClassVar[frozenset[str]] = frozenset()
    """Fields that only the last step depends on, which can be repeated alone with others. They are
    stored in the file that the last step writes."""

    @classmethod
    def extending(cls: type[Asked], settings: "Settings", **more: Any) -> Asked:
        """Return other settings with some more fields."""
        return cls(**{item.name: getattr(settings, item.name) for item in fields(settings)}, **more)

    def stored(self) -> dict[str, Any]:
        """Return what the file of these settings holds, as plain JSON values."""
        return {name: v for name, v in asdict(self).items() if name not in self.of_the_report}

    def to_json(self) -> str:
        """Return the text of the file of these settings."""
        content = {"format": self.form, **self.stored()}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def completed(self: Asked) -> Asked:
        """Return the same settings with what a file of an older version does not say."""
        return self

    def pinned(self: Asked) -> Asked:
        """Return the same settings in a form that means the same everywhere and later on."""
        return self.completed()

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that two equal works share, as plain JSON values."""
        left_out = self.incidental | self.of_the_report
        return {name: value for name, value in as_json(self).items() if name not in left_out}

    @property
    def report_settings(self) -> dict[str, Any]:
        """Settings of the last step, as plain JSON values."""
        return {name: v for name, v in as_json(self).items() if name in self.of_the_report}

    @property
    def all_asked(self) -> dict[str, Any]:
        """Settings that the result depends on, those of the last step included."""
        return {**self.identity, **self.report_settings}

    def differences(self, there: "Settings") -> list[str]:
        """Return what fixes the result and is different: `seed is 0 there and 1 here`."""
        return differences(there.identity, self.identity)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return how two sets of plain values differ, a line for each name."""
    there, here = _flat(there), _flat(here)
    lines = (_difference(name, there.get(name), here.get(name)) for name in {**there, **here})
    return [line for line in lines if line]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of a group, such as a method's options, before all others."""
    groups = [value for value in values.values() if isinstance(value, dict)]
    single = {name: value for name, value in values.items() if not isinstance(value, dict)}
    return {name: value for group in groups for name, value in sorted(group.items())} | single


def _difference(name: str, there: Any, here: Any) -> str:
    if there == here:
        return ""
    if name in _DIGESTS:
        return _DIGESTS[name]
    if isinstance(there, list) or isinstance(here, list):
        return f"not the same {name}"
    there, here = ("not given" if value is None else value for value in (there, here))
    return f"{name} is {there} there and {here} here"
