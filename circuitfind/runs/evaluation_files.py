"""What an evaluation leaves in its directory: its figures, its charts, and passes on the way."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitfind.errors import RunDirectoryError
from circuitfind.evaluation.assess import EFFORTS, Effort, Subject
from circuitfind.evaluation.assessment import Assessment, assessment_from
from circuitfind.evaluation.passes import PassLog
from circuitfind.reports.evaluation import charts
from circuitfind.runs.directory import SCORECARD, held, read_json, reported, write_whole

PASSES = "evaluation-passes.jsonl"


def require_replaceable(out: Path, subject: Subject, effort: Effort) -> None:
    """Refuse to replace an evaluation by one that says less, or something else.

    Raises:
        RunDirectoryError: The message says what is there.
    """
    file = out / SCORECARD
    stored = read_json(file).get("evaluation") if file.is_file() else None
    if stored is None:
        return
    there, own = assessment_from(stored), subject.problem
    efforts = [each.name for each in EFFORTS]
    n_prompts = next((r.n_prompts for r in there.readings if r.prompts == "discovery"), 0)
    alike = (there.metric, there.ablation, n_prompts) == (
        own.metric.name, own.ablation, len(own.prompts),
    )  # fmt: skip
    less = efforts.index(effort.name) < efforts.index(there.effort)
    if less or not alike or there.against not in (None, subject.against):
        against = f", against {there.against}" if there.against else ""
        raise RunDirectoryError(
            f"{out} holds another evaluation ({there.effort}, {there.metric}, {there.ablation}, "
            f"{n_prompts} prompts{against}), which this one would replace; choose another --out"
        )


@contextmanager
def kept_passes(out: Path, tell: Callable[[str], None]) -> Iterator[PassLog]:
    """Keep other evaluations out of a directory, and open the passes of an interrupted one."""
    with reported(out):
        out.mkdir(parents=True, exist_ok=True)
    with held(out):
        with reported(out):
            log = PassLog(out / PASSES)
        if log.n_earlier:
            tell(f"{log.n_earlier} passes of an interrupted evaluation are there and not repeated")
        try:
            yield log
        except OSError as error:
            raise RunDirectoryError(
                f"cannot keep passes in {out}: {error.strerror or error}; free some space, or "
                "choose another --out"
            ) from error
        finally:
            log.close()


def write_assessment(out: Path, assessment: Assessment) -> tuple[Path, ...]:
    """Write the figures, beside what a run's scorecard says already, and the charts."""
    with reported(out):
        file = out / SCORECARD
        stored = read_json(file) if file.is_file() else {}
        content = {**stored, "evaluation": assessment.as_json()}
        write_whole(file, json.dumps(content, indent=1) + "\n")
        return (file, *_drawn(out, assessment))


def _drawn(out: Path, assessment: Assessment) -> Iterator[Path]:
    for name, chart in charts(assessment).items():
        contents: tuple[tuple[str, str | bytes], ...] = (("svg", chart.svg()), ("png", chart.png()))
        for suffix, content in contents:
            write_whole(out / f"{name}.{suffix}", content)
            yield out / f"{name}.{suffix}"


def drop_passes(out: Path) -> None:
    """Delete the passes of an evaluation that is written down."""
    with reported(out):
        (out / PASSES).unlink(missing_ok=True)
