"""Files of an evaluation: its figures, its charts, and the forward passes made so far."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuitfind.circuit import Circuit
from circuitfind.directories.directory import SCORECARD
from circuitfind.errors import RunDirectoryError
from circuitfind.evaluation.assess import EFFORTS
from circuitfind.evaluation.assessment import Assessment, assessment_from
from circuitfind.evaluation.passes import PassLog
from circuitfind.files import write_whole
from circuitfind.methods.settings import lifted
from circuitfind.records import body_of
from circuitfind.reports.evaluation import charts
from circuitfind.store import at_work, read_json, reported

PASSES = "evaluation-passes.jsonl"
EVALUATION, FORMAT = "evaluation.json", "circuitfind evaluation 1"


@dataclass(frozen=True)
class Asked:
    """Settings that tell one evaluation of a circuit from another.

    Attributes:
        facts: What must be equal: the circuit, the settings, the seed.
        effort: Name of the effort; a fuller evaluation says what a lesser one says.
        against: The known circuit to compare with; None for an evaluation without one.
    """

    facts: Mapping[str, Any]
    effort: str
    against: str | None

    def covers(self, other: "Asked") -> bool:
        """Return whether this evaluation says everything that the other one says."""
        efforts = [each.name for each in EFFORTS]
        return (
            self.facts == other.facts
            and efforts.index(self.effort) >= efforts.index(other.effort)
            and other.against in (None, self.against)
        )


def digest_of(circuit: Circuit) -> str:
    """Return a hash of a circuit and of what it was found on, but for the versions in use."""
    origin = {name: value for name, value in circuit.origin.items() if name != "versions"}
    text = replace(circuit, origin=origin).to_json()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished_evaluation(
    out: Path, asked: Asked, tell: Callable[[str], None]
) -> tuple[Assessment, tuple[Path, ...]] | None:
    """Return an evaluation that says all that is asked for, with its files, if it is there.

    Raises:
        RunDirectoryError: The directory holds another evaluation.
    """
    found = _stored(out)
    if found is None:
        return None
    there, assessment = found
    if there is not None and there.covers(asked):
        kind = "finished" if there.effort == asked.effort else f"there already ({there.effort})"
        tell(f"the evaluation in {out} is {kind}: its results are read, not computed again")
        return assessment, (_file(out), *_chart_files(out, assessment))
    if not _is_usable(there, asked):
        n_prompts = next((r.n_prompts for r in assessment.readings if r.prompts == "discovery"), 0)
        against = f", against {assessment.against}" if assessment.against else ""
        raise RunDirectoryError(
            f"{out} holds another evaluation ({assessment.effort}, {assessment.metric}, "
            f"{assessment.ablation}, {n_prompts} prompts{against}), which this one would replace; "
            "choose another --out, or none"
        )
    return None


def _file(out: Path) -> Path:
    return out / (EVALUATION if (out / EVALUATION).is_file() else SCORECARD)


def can_take(out: Path, asked: Asked) -> bool:
    """Return whether an evaluation can go into a directory without replacing another one.

    Raises:
        RunDirectoryError: A file there is damaged.
    """
    found = _stored(out)
    if found is None:
        return out.is_dir() or not out.exists()
    return _is_usable(found[0], asked)


def _is_usable(there: Asked | None, asked: Asked) -> bool:
    return there is not None and (there.covers(asked) or asked.covers(there))


def _stored(out: Path) -> tuple[Asked | None, Assessment] | None:
    """Return the evaluation in a directory, and what it is of; None of one that does not say."""
    if (content := _content(out)).get("evaluation") is None:
        return None
    assessment = assessment_from(content["evaluation"])
    try:
        of = content["of"]
        facts = {**of["facts"], "settings": lifted(of["facts"]["settings"])}
        return Asked(facts, assessment.effort, of["against"]), assessment
    except (KeyError, TypeError, ValueError, AttributeError):
        return None, assessment


def _content(out: Path) -> dict[str, Any]:
    if (file := out / EVALUATION).is_file():
        try:
            return body_of(read_json(file), FORMAT, file)
        except ValueError as error:
            raise RunDirectoryError(
                f"{file} is damaged ({error}); delete it to evaluate again"
            ) from None
    # Version 0.1.0 wrote it into the scorecard.
    stored = read_json(out / SCORECARD) if (out / SCORECARD).is_file() else None
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
    asked, assessment = found
    same = asked is None or asked.facts.get("circuit") == digest_of(circuit)
    return assessment if same else None


@contextmanager
def kept_passes(out: Path, tell: Callable[[str], None]) -> Iterator[PassLog]:
    """Keep other evaluations out of a directory, and open the passes of an interrupted one."""
    with at_work(out):
        log = PassLog(out / PASSES)
        if log.n_earlier:
            tell(f"{log.n_earlier} passes of an interrupted evaluation are there and not repeated")
        try:
            yield log
        finally:
            log.close()


def write_assessment(out: Path, assessment: Assessment, asked: Asked) -> tuple[Path, ...]:
    """Write the charts and the figures."""
    of = {"facts": dict(asked.facts), "against": asked.against}
    content = {"format": FORMAT, "of": of, "evaluation": assessment.as_json()}
    with reported(out):
        drawn = tuple(_drawn(out, assessment))
        # Written last: where it is, its charts are there.
        write_whole(out / EVALUATION, json.dumps(content, indent=1) + "\n")
    return (out / EVALUATION, *drawn)


def _drawn(out: Path, assessment: Assessment) -> Iterator[Path]:
    for name, chart in charts(assessment).items():
        contents: tuple[tuple[str, str | bytes], ...] = (("svg", chart.svg()), ("png", chart.png()))
        for suffix, content in contents:
            write_whole(out / f"{name}.{suffix}", content)
            yield out / f"{name}.{suffix}"


def _chart_files(out: Path, assessment: Assessment) -> Iterator[Path]:
    for name in charts(assessment):
        yield from (out / f"{name}.{suffix}" for suffix in ("svg", "png"))


def drop_passes(out: Path) -> None:
    """Delete the passes of an evaluation that is written down."""
    with reported(out):
        (out / PASSES).unlink(missing_ok=True)
