"""All results of an evaluation as one value, and its form in a file."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from circuitfind import records
from circuitfind.errors import ResultFileError, shortened
from circuitfind.evaluation.baseline import Baseline
from circuitfind.evaluation.completeness import Completeness
from circuitfind.evaluation.false_discoveries import Discoveries
from circuitfind.evaluation.hypotheses import HypothesisTest
from circuitfind.evaluation.minimality import Minimality
from circuitfind.evaluation.refit import Divergence
from circuitfind.evaluation.roc import RocCurve
from circuitfind.evaluation.scorecard import Measurement
from circuitfind.evaluation.size_curve import SizeCurve
from circuitfind.evaluation.strongest_path import StrongestPath
from circuitfind.evaluation.trust import OwnResult
from circuitfind.notebook import Tabled


@dataclass(frozen=True)
class Reading:
    """A metric on some of the prompts.

    Attributes:
        prompts: Which: `discovery`, `held-out` or `template NUMBER` (of the discovery prompts).
        n_prompts: How many.
        measured: The metric, with faithfulness and its interval.
    """

    prompts: str
    n_prompts: int
    measured: Measurement


@dataclass(frozen=True)
class Assessment(Tabled):
    """A verdict in figures. What was not asked for, or cannot be said, is None or empty.

    Attributes:
        effort: `quick`, `usual` or `full`.
        ablation: What cut edges carried.
        metric: The metric of all that follows the readings.
        unit: Its unit.
        n_edges: Edges of the circuit.
        n_edges_full: Edges of the graph.
        readings: Faithfulness by several metrics, on discovery and held-out prompts, by template.
        curve: Faithfulness against size.
        baselines: The circuit among random ones.
        completeness: How alike circuit and model break.
        minimality: What the circuit does not need.
        tests: Tests of what an ideal circuit would satisfy.
        discoveries: Which edges have an effect, all tested together.
        roc: Comparison with a known circuit, if one was given.
        against: The name of that circuit.
        n_passes: Passes of all prompts that this took.
        seconds: How long they took.
        own: How well the model itself does the task; None where prompts have no answers.
        doubts: Why these figures cannot be trusted, a sentence each.
        notes: What else a reader should know.
        divergences: How close the circuit is to the model, by what cut edges carry.
        path: The strongest path, and the circuit among random ones without it.
    """

    effort: str
    ablation: str
    metric: str
    unit: str
    n_edges: int
    n_edges_full: int
    readings: tuple[Reading, ...]
    curve: SizeCurve | None
    baselines: tuple[Baseline, ...]
    completeness: Completeness | None
    minimality: Minimality | None
    tests: tuple[HypothesisTest, ...]
    discoveries: Discoveries | None
    roc: tuple[RocCurve, ...]
    against: str | None
    n_passes: int
    seconds: float
    own: OwnResult | None = None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    divergences: tuple[Divergence, ...] = ()
    path: StrongestPath | None = None

    def __repr__(self) -> str:
        return (
            f"<Assessment ({self.effort}): {self.n_edges} of {self.n_edges_full} edges, "
            f"{shortened(self.metric)[:60]}, {self.ablation} ablation; {len(self.readings)} "
            f"readings, {len(self.tests)} tests, {len(self.doubts)} warnings>"
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the readings as rows."""
        for reading in self.readings:
            yield {
                "prompts": reading.prompts,
                "n_prompts": reading.n_prompts,
                **asdict(reading.measured),
            }

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return records.as_json(self)


def assessment_from(value: Any) -> Assessment:
    """Return the assessment that `Assessment.as_json` has written.

    Raises:
        ResultFileError: It is none.
    """
    try:
        found: Assessment = records.from_json(Assessment, value)
    except ValueError as error:
        raise ResultFileError(
            f"this is no evaluation of a circuit ({error}); `circuitfind evaluate` writes one"
        ) from None
    return found
