"""Does the circuit of one task do another task of the same model?

The circuit is run on the other circuit's problem: its prompts, its metric, its ablation. Beside its
faithfulness there stand that of the other circuit itself, and those of random circuits with the
same degrees (`random_circuits`): a large circuit does something on any task.
"""

from dataclasses import dataclass

from circuitfind.circuit import Circuit
from circuitfind.comparison.chance import Chance, Statistic
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.evaluation.random_circuits import p_value, random_circuits
from circuitfind.evaluation.scorecard import measure_all

RANDOM_CIRCUITS = "random circuits"
N_RANDOM = 20


@dataclass(frozen=True)
class Transfer:
    """A circuit on another one's problem.

    Attributes:
        circuit: Number of the circuit.
        on: Number of the circuit whose problem it is run on.
        metric: Name of that problem's metric.
        faithfulness: The circuit's faithfulness there; undefined where the metric has no gap.
        own: That of the problem's own circuit.
    """

    circuit: int
    on: int
    metric: str
    faithfulness: Statistic
    own: float | None


def transfer(
    engine: IncrementalEngine,
    moved: Circuit,
    own: Circuit,
    numbers: tuple[int, int],
    *,
    n_random: int = N_RANDOM,
    seed: int = 0,
) -> Transfer:
    """Run a circuit on the problem of another one of the same model.

    Args:
        engine: Of the problem.
        moved: The circuit.
        own: The circuit that was found on the problem.
        numbers: The numbers of both.
        n_random: How many random circuits it is compared with.
        seed: Fixes them.
    """
    metric = engine.problem.metric
    circuits = [moved, own, *random_circuits(moved, n_random, seed=seed)]
    rows = measure_all(engine, circuits, metric)
    value, of_own, *drawn = (row.faithfulness for row in rows)
    known = [each for each in drawn if each is not None]
    chance = {}
    if value is not None and known:
        chance[RANDOM_CIRCUITS] = Chance(sum(known) / len(known), p_value(value, known))
    return Transfer(*numbers, metric.name, Statistic(value, chance), of_own)
