"""What knocking circuits out of a model does to each task, as one value; see `dissociate`."""

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from circuitfind import records
from circuitfind.errors import MethodError, quoted
from circuitfind.notebook import Tabled

Verdict = Literal["none", "single", "double"]

Undecided = Literal["no gap", "same prompts", "too few prompts", "prompts too much alike"]

LEAST_DIFFERENCE = 0.1
"""From which difference of two effects on a dissociation counts."""


@dataclass(frozen=True)
class KnockedOut:
    """A circuit that is knocked out.

    Attributes:
        name: Its name.
        n_edges: How many edges it has.
    """

    name: str
    n_edges: int


@dataclass(frozen=True)
class Column:
    """What is measured: a task, or unrelated text.

    Attributes:
        name: Its name.
        prompts: Which prompts: `held-out`, `discovery` or `text`.
        n_prompts: How many.
        metric: The metric.
        unit: Its unit.
        full: Its mean of the full model.
        empty: With every edge cut.
    """

    name: str
    prompts: str
    n_prompts: int
    metric: str
    unit: str
    full: float
    empty: float


@dataclass(frozen=True)
class Effect:
    """What knocking a circuit out of the model does to a task.

    Attributes:
        circuit: The circuit that is knocked out.
        on: What is measured.
        value: The mean of the metric without the circuit.
        effect: The share of the distance from the full model to the empty graph; None where there
            is no such distance.
        low: Lower end of its 95 % interval over prompts; None where there is none.
        high: Its upper end.
        random: The mean effect of random connected circuits with as many edges.
        p_value: How often one of them has at least this effect, the circuit counted in.
    """

    circuit: str
    on: str
    value: float
    effect: float | None
    low: float | None
    high: float | None
    random: float | None
    p_value: float | None


@dataclass(frozen=True)
class Difference:
    """The effect of a circuit on its own task minus that on the other task of a pair.

    Attributes:
        circuit: The circuit.
        value: The difference; None where an effect is undefined.
        low: Lower end of its 95 % interval; None where there is none.
        high: Its upper end.
    """

    circuit: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairTest:
    """The test of two circuits.

    Attributes:
        circuits: Their names.
        n_shared: How many edges both have.
        differences: That of each.
        verdict: How many of the two intervals lie above `LEAST_DIFFERENCE`: `none`, `single` or
            `double`; None where an interval is missing.
        undecided: Why one is missing: an effect is undefined, since the full model and the empty
            graph do not differ (`no gap`); a prompt is in both tasks, so that the effects are not
            independent (`same prompts`); there are fewer than 8 (`too few prompts`); or all but a
            few are alike in what they measure (`prompts too much alike`).
    """

    circuits: tuple[str, str]
    n_shared: int
    differences: tuple[Difference, Difference]
    verdict: Verdict | None
    undecided: Undecided | None = None


@dataclass(frozen=True)
class Dissociation(Tabled):
    """Effects of knocking each circuit out on each task.

    Attributes:
        circuits: The circuits, or their own edges: the rows.
        columns: What is measured: a task for each circuit, in the same order, and any text.
        effects: Row by row.
        pairs: The test of each two circuits.
        n_random: How many random circuits each is compared with.
        own_edges: Whether the edges of a circuit that no other one has were knocked out alone.
    """

    circuits: tuple[KnockedOut, ...]
    columns: tuple[Column, ...]
    effects: tuple[Effect, ...]
    pairs: tuple[PairTest, ...]
    n_random: int
    own_edges: bool = False

    def __repr__(self) -> str:
        n_double = sum(pair.verdict == "double" for pair in self.pairs)
        return (
            f"<Dissociation: {len(self.circuits)} circuits on {len(self.columns)} columns, "
            f"{n_double} of {len(self.pairs)} pairs dissociate doubly>"
        )

    def of(self, circuit: str, on: str) -> Effect:
        """Return the effect of knocking a circuit out on a task.

        Raises:
            MethodError: There is no such circuit or task.
        """
        for each in self.effects:
            if (each.circuit, each.on) == (circuit, on):
                return each
        names = ", ".join(column.name for column in self.columns)
        raise MethodError(
            f"no effect of {quoted(circuit)} on {quoted(on)} was measured; there are {names}"
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the effects as rows."""
        yield from map(asdict, self.effects)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return records.as_json(self)

    def to_csv(self) -> str:
        """Return the effects as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [item.name for item in fields(Effect)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records())
        return text.getvalue()
