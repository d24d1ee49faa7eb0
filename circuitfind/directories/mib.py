"""The directory of a ranking that is measured by MIB's protocol.

`mib.json` is written last. The folder `submission` holds the scores as the benchmark takes them, in
a folder named by task and model; they are written before anything is measured, and found again by
an interrupted measurement.
"""

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import ClassVar

from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import DECISIONS
from circuitfind.directories.naming import default_path
from circuitfind.directories.passes import PassDirectory
from circuitfind.directories.work import CIRCUIT, stored_result
from circuitfind.errors import CircuitFileError, MethodError, quoted
from circuitfind.evaluation.mib import MibResult
from circuitfind.files import digest, path_of
from circuitfind.formats.submission import SCORE_FILES
from circuitfind.limits import require
from circuitfind.methods import METHODS
from circuitfind.methods.base import ScoringMethod
from circuitfind.metrics import LOGIT_DIFFERENCE
from circuitfind.question import Question
from circuitfind.records import as_json
from circuitfind.reports.diagram import Diagram
from circuitfind.store import reported
from circuitfind.tasks import find_task, task_file

RESULT, FORMAT, PASSES = "mib.json", "circuitfind mib 1", "mib-passes.jsonl"
SUBMISSION = "submission"

LEVELS = ("edges", "components")

_PLAIN = Question("", "", metric=LOGIT_DIFFERENCE.name)
_FIXED = (
    "metric", "ablation", "split_qkv", "split_embedding", "places", "crossing", "neurons", "latents"
)  # fmt: skip
"""Settings of a question that the protocol fixes, as `_PLAIN` has them."""


@dataclass(frozen=True)
class MibConfig(RunConfig):
    """Settings of a measurement by MIB's protocol: the prompts, and where the scores come from.

    Attributes:
        level: Whether edges or components are ranked.
        scores: A submission's folder or file, or a run directory, whose scores are measured; None
            where the method computes them.
        scores_digest: A hash of that file; filled in by `located`.
        train: The task on whose prompts the method computes scores; None for other prompts of the
            same task, or the same ones of a file.
        train_digest: A hash of its file, likewise.
        n_train: How many pairs of prompts it computes them on; None for as many as are measured.
        against: A known circuit to compare with, as InterpBench does it.
    """

    _: KW_ONLY
    level: str = "edges"
    scores: str | None = None
    scores_digest: str | None = None
    train: str | None = None
    train_digest: str | None = None
    n_train: int | None = None
    against: str | None = None

    form: ClassVar[str] = "circuitfind mib run 1"
    noun: ClassVar[str] = "measurement by MIB's protocol"

    def __post_init__(self) -> None:
        if self.metric is None:
            object.__setattr__(self, "metric", LOGIT_DIFFERENCE.name)
        super().__post_init__()

    def validate(self, *, any_threshold: bool = True) -> None:
        super().validate(any_threshold=any_threshold)
        require(prompts=self.n_train)
        if self.train is not None:
            find_task(self.train)
        if self.level not in LEVELS:
            raise MethodError(
                f"nothing is ranked by {quoted(self.level)}; choose {' or '.join(LEVELS)}"
            )
        if self.selection:
            raise MethodError(
                f"{next(iter(self.selection)).replace('_', ' ')} chooses a circuit, and here ten "
                "sizes of a ranking are measured; leave it out"
            )
        require_protocol(self)
        if self.scores is not None and any((self.method, self.options, self.train, self.n_train)):
            raise MethodError(
                "scores are given, so no method computes any; leave out the method and its "
                "options, --train and --train-prompts"
            )
        if self.scores is None and not isinstance(METHODS.find(self.method), ScoringMethod):
            ranking = ", ".join(each.name for each in METHODS if isinstance(each, ScoringMethod))
            raise MethodError(
                f"the method {quoted(self.method)} decides edge by edge and ranks none; choose one "
                f"of {ranking}, or give the scores of a run (--scores)"
            )

    def located(self) -> "MibConfig":
        found = super().located()
        train = None if self.train is None else task_file(self.train)
        if train is not None:
            found = replace(found, train=str(train.resolve()), train_digest=digest(train))
        if self.scores is not None:
            file = scores_file(path_of(self.scores))
            place = str(path_of(self.scores).resolve())
            found = replace(found, scores=place, scores_digest=digest(file))
        return found


def require_protocol(question: Question) -> None:
    """Refuse a setting that the protocol fixes.

    Raises:
        MethodError: It is another than the protocol's.
    """
    if changed := [name for name in _FIXED if getattr(question, name) != getattr(_PLAIN, name)]:
        raise MethodError(
            f"{changed[0]} is {quoted(getattr(question, changed[0]))}, and MIB's protocol has "
            f"{quoted(getattr(_PLAIN, changed[0]))}; leave it out"
        )


def path_of_mib(config: MibConfig) -> Path:
    """Return the directory of a measurement unless the user names one."""
    default = Question(config.task, config.model)
    settings = {
        **config.options,
        "scores": config.scores and Path(config.scores).name,
        "train": config.train and Path(config.train).stem,
        "train-prompts": config.n_train,
        "level": config.level if config.level != "edges" else None,
        "against": config.against and Path(config.against).name,
        "prompts": config.n_prompts if config.n_prompts != default.n_prompts else None,
        "seed": config.seed if config.seed != default.seed else None,
        "dtype": config.dtype,
    }
    about = [name for name in ("mib", config.task, config.model, config.method) if name]
    return default_path(about, settings, lambda path: MibDirectory.can_take(path, config))


def scores_file(path: Path) -> Path:
    """Return the file that holds the scores of a run directory or a submission.

    Raises:
        CircuitFileError: There is none.
    """
    names = (DECISIONS, CIRCUIT, *SCORE_FILES)
    places = [path / name for name in names] if path.is_dir() else [path]
    found = [place for place in places if place.is_file()]
    if not found:
        raise CircuitFileError(
            f"{path} holds no scores; give a run directory, or the folder or file of a submission "
            f"({' or '.join(SCORE_FILES)})"
        )
    return found[0]


class MibDirectory(PassDirectory[MibConfig]):
    """The directory of one measurement by MIB's protocol."""

    kind = MibConfig
    last = RESULT
    passes = PASSES
    lasting = (PASSES, SUBMISSION)

    def result(self) -> MibResult | None:
        """Return the result, if it is there.

        Raises:
            RunDirectoryError: The file is damaged.
        """
        return stored_result(self.path / RESULT, MibResult, FORMAT)

    def write_scores(self, folder: str, files: Mapping[str, str]) -> None:
        """Write the files of a folder to submit."""
        place = self.path / SUBMISSION / folder
        with reported(place):
            place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            self.write(str(place.relative_to(self.path) / name), text)

    def write_result(self, found: MibResult, chart: Diagram) -> None:
        """Write the chart and the figures, and delete the passes."""
        self.write("mib.svg", chart.svg())
        content = {"format": FORMAT, "cpr": found.cpr, "cmd": found.cmd, **as_json(found)}
        self.write(RESULT, json.dumps(content, indent=1) + "\n")
        self.drop_passes()
