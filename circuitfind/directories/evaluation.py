"""The directory of an evaluation: its settings, the forward passes made so far, figures and charts.

This may be the directory of the run that found the circuit; so `evaluation-config.json` and
`evaluation-environment.json` have names of their own. `evaluation.json` is written last.
"""

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar

from circuitfind.circuit import Circuit
from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import SCORECARD, digest_of
from circuitfind.directories.passes import PassDirectory
from circuitfind.errors import RunDirectoryError
from circuitfind.evaluation.assess import EFFORTS, USUAL
from circuitfind.evaluation.assessment import Assessment, assessment_from
from circuitfind.records import body_of, from_json
from circuitfind.reports.evaluation import charts
from circuitfind.settings import differences
from circuitfind.store import read_json

PASSES = "evaluation-passes.jsonl"
CONSTANTS = "constants.safetensors"
EVALUATION, FORMAT = "evaluation.json", "circuitfind evaluation 2"


@dataclass(frozen=True)
class EvaluationConfig(RunConfig):
    """Settings of an evaluation: the question, the circuit, and how much is measured.

    Attributes:
        circuits: A hash of the circuit, and of those of the same search at other thresholds.
        of_a_run: Whether the circuit is that of a run directory.
        evaluation_seed: Fixes random circuits and sets.
        effort: Name of the effort; a fuller evaluation says what a lesser one says.
        against: The known circuit to compare with; None for an evaluation without one.
        constants: Whether constants are trained for what the circuit cuts.
    """

    _: KW_ONLY
    circuits: tuple[str, ...]
    of_a_run: bool
    evaluation_seed: int
    effort: str = USUAL.name
    against: str | None = None
    constants: bool = False

    form: ClassVar[str] = "circuitfind evaluation run 1"
    noun: ClassVar[str] = "evaluation"
    of_the_report: ClassVar[frozenset[str]] = frozenset({"effort", "against", "constants"})

    def covers(self, other: "EvaluationConfig") -> bool:
        """Return whether this evaluation says everything that the other one says."""
        efforts = [each.name for each in EFFORTS]
        return (
            self.identity == other.identity
            and efforts.index(self.effort) >= efforts.index(other.effort)
            and other.against in (None, self.against)
            and self.constants >= other.constants
        )


class EvaluationDirectory(PassDirectory[EvaluationConfig]):
    """The directory of one evaluation, or of a run and its evaluation."""

    kind = EvaluationConfig
    prefix = "evaluation-"
    passes = PASSES
    lasting = (PASSES, CONSTANTS)

    @property
    def is_complete(self) -> bool:
        return self.result() is not None

    @classmethod
    def is_ours(cls, file: Path) -> bool:
        return True

    def there(self) -> EvaluationConfig | None:
        if (there := super().there()) is not None or (found := _stored(self.path)) is None:
            return there
        # Earlier versions wrote the result alone.
        if found[0] is None:
            raise RunDirectoryError(
                f"{self.path} holds an evaluation that does not say of what it is; choose another "
                "--out"
            )
        return found[0]

    def require_same(self) -> None:
        super().require_same()
        self.result()

    def result(self) -> tuple[EvaluationConfig, Assessment] | None:
        """Return the evaluation that is there if it says all that is asked for.

        Raises:
            RunDirectoryError: It says other things as well, which would be lost.
        """
        there, assessment = _stored(self.path) or (None, None)
        if there is None or assessment is None:
            return None
        if there.covers(self.config):
            return there, assessment
        if not self.config.covers(there):
            different = differences(there.report_settings, self.config.report_settings)
            raise RunDirectoryError(
                f"{self.path} holds another evaluation ({'; '.join(different)}), which this one "
                "would replace; choose another --out, or none"
            )
        return None

    def files(self, assessment: Assessment) -> tuple[Path, ...]:
        """Return the files of an evaluation that is there."""
        first = EVALUATION if (self.path / EVALUATION).is_file() else SCORECARD
        drawn = [f"{name}.{suffix}" for name in charts(assessment) for suffix in ("svg", "png")]
        return self.written(first, CONSTANTS, *drawn)

    def write_result(self, assessment: Assessment) -> None:
        """Write the charts and the figures."""
        for name, chart in charts(assessment).items():
            self.write(f"{name}.svg", chart.svg())
            self.write(f"{name}.png", chart.png())
        of = self.config.all_asked
        content = {"format": FORMAT, "of": of, "evaluation": assessment.as_json()}
        # Written last: where it is, its charts are there.
        self.write(EVALUATION, json.dumps(content, indent=1) + "\n")


def _stored(path: Path) -> tuple[EvaluationConfig | None, Assessment] | None:
    """Return the evaluation in a directory, and what it is of; None of one that does not say."""
    content = _content(path)
    if content.get("evaluation") is None:
        return None
    assessment = assessment_from(content["evaluation"])
    try:
        of = _of_first_version(content["of"], assessment.effort)
        found: EvaluationConfig = from_json(EvaluationConfig, of, "its settings")
        return found.completed(), assessment
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, assessment


def _of_first_version(of: Mapping[str, Any], effort: str) -> dict[str, Any]:
    """Return the settings of an evaluation as files of format 1 hold them, or as they are."""
    if "facts" not in of:
        return dict(of)
    facts = of["facts"]
    return {
        **facts["settings"],
        "circuits": [facts["circuit"], *facts["others"]],
        "of_a_run": facts["is_run"],
        "evaluation_seed": facts["seed"],
        "effort": effort,
        "against": of["against"],
    }


def _content(path: Path) -> dict[str, Any]:
    if (file := path / EVALUATION).is_file():
        try:
            return body_of(read_json(file), FORMAT, file)
        except ValueError as error:
            raise RunDirectoryError(
                f"{file} is damaged ({error}); delete it to evaluate again"
            ) from None
    # Version 0.1.0 wrote it into the scorecard.
    stored = read_json(path / SCORECARD) if (path / SCORECARD).is_file() else None
    if not isinstance(stored, dict):
        return {}
    return {"evaluation": stored.get("evaluation"), "of": stored.get("evaluation_of")}


def evaluation_of(path: Path, circuit: Circuit) -> Assessment | None:
    """Return the evaluation of a run's circuit; None where there is none, or that of another.

    Raises:
        CircuitfindError: The file is damaged.
    """
    if (found := _stored(path)) is None:
        return None
    there, assessment = found
    return assessment if there is None or there.circuits[:1] == (digest_of(circuit),) else None
