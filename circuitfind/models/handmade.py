"""The models wired by hand: `python -m circuitfind.models.handmade` writes them into the package.

Some are embedded models with a name; the others serve the suite `truth` of benchmarks, and lie
beside it.

Their true circuits follow from how they are wired, and stand in each model's JSON:

    truth        the edges that the program needs, for each ablation
    alone        likewise for cutting each edge alone in the full graph, where that differs
    placed       the edges at single places that are needed: on prompts of the task with named
                 positions, or at each position of the inputs of the task `program`
    crossing     the same, and the moves inside attention that they need
    units        the edges that the program needs where neurons are told apart
    rivals       the other circuits that do as much with as many edges, for each ablation with any
    thresholds   the range of thresholds of the squared distance over which ACDC finds the truth

Under `resample` and `mean` a cut edge still carries what all inputs share (where a symbol stands,
that BOS comes first), so edges that carry nothing else do not count; under `zero`, and where means
run over positions too, they do.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from circuitfind.models import copying, counting, gates, programs
from circuitfind.models.wiring import Wiring

WIRED: Mapping[str, Callable[[], Wiring]] = {
    "reverse": programs.reverse,
    "hist": programs.hist,
    "xproportion": programs.xproportion,
    "induction-pair": gates.induction_pair,
    "and-gate": gates.and_gate,
    "or-gate": gates.or_gate,
    "backup-head": gates.backup_head,
    "two-circuits": gates.two_circuits,
}
"""The function that makes each embedded model."""

OF_SUITES: Mapping[str, Callable[[], Wiring]] = {
    "xor-gate": gates.xor_gate,
    "majority": gates.majority,
    "and-or": gates.and_or,
    "two-back": copying.two_back,
    "maximum": copying.maximum,
    "pointer": copying.pointer,
    "other-name": copying.other_name,
    "negative-copy": copying.negative_copy,
    "sort": counting.sort,
    "first-unique": counting.first_unique,
    "first-seen": counting.first_seen,
    "parity": counting.parity,
    "balance": counting.balance,
    "exactly-one": gates.exactly_one,
    "modular-addition": gates.modular_addition,
    "three-back": copying.three_back,
    "skip-trigram": copying.skip_trigram,
    "where-largest": copying.where_largest,
    "pointer-twice": copying.pointer_twice,
}
"""Likewise for those that lie beside the suite."""

_PACKAGE = Path(__file__).parents[1]
FOLDERS = {"models/zoo/handmade": WIRED, "suites/truth": OF_SUITES}
"""Where the models lie in the package."""


def main() -> None:
    """Write every model to its place."""
    for folder, models in FOLDERS.items():
        for name, wire in models.items():
            wire().save(_PACKAGE / folder, name)


if __name__ == "__main__":
    main()
