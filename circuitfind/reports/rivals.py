"""Rivals of a circuit as tables for the terminal."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from circuitfind.comparison.rivals import Rivals
from circuitfind.reports.terminal import fact_table, listing

_SHOWN = 10


def rivals_tables(found: Rivals) -> Iterator[Table]:
    """Yield the rivals beside the circuit, and what all of them share."""
    rows = [["found", str(found.n_edges), *_shares(found.faithfulness, found.held_out), *["-"] * 5]]
    rows += [
        [
            f"rival {number}",
            str(len(each.edges)),
            *_shares(each.faithfulness, each.held_out),
            f"{each.jaccard:.3f}",
            f"{each.by_chance:.3f}",
            f"{each.components:.3f}",
            _listed(each.gone),
            _listed(each.instead),
        ]
        for number, each in enumerate(found.rivals[:_SHOWN], 1)
    ]
    headers = ["circuit", "edges", "faithfulness", "held-out", "shared edges", "by chance"]
    yield listing([*headers, "shared components", "lacks", "instead"], rows)
    n = len(found.rivals)
    facts = {
        "verdict": found.verdict,
        "rivals": f"{n}, {_SHOWN} of them shown" if n > _SHOWN else str(n),
        **(
            {
                "edges in every rival": _listed(found.core),
                "edges in no rival": _listed(found.spared),
            }
            if n
            else {"edges needed": found.needed}
        ),
        **({"restarts": "; ".join(map(str, found.kinds))} if found.kinds else {}),
        "edges of the graph that none has": str(found.n_unused),
        "parts of the circuit as faithful": str(found.n_within) if found.proved else "not counted",
        "seconds": f"{found.seconds:.1f}",
    }
    yield fact_table(facts)


def _shares(own: float, held_out: float | None) -> list[str]:
    return [f"{own:.3f}", "-" if held_out is None else f"{held_out:.3f}"]


def _listed(names: Sequence[str]) -> str:
    left = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + left if names else "none"
