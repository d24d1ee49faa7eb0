"""Learned masks next to eap-ig at the same size: faithfulness of circuits of 5 % of the edges."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count

import circuitfind as cf
from circuitfind.methods import METHODS
from circuitfind.methods.search import search
from circuitfind.methods.selection import share_of

MODEL, TASK = "ioi-small", "ioi"
N_PROMPTS, SHARE, SEEDS = 64, 0.05, (0, 1, 2)
LEARNED = ("subnetwork-probing", "edge-pruning")

TEXT = """At {sparsity:.0%} sparsity (`{model}`, task `{task}`, {n_prompts} prompts, KL divergence,
`--edges {edges}`), each training next to the smallest circuit of `eap-ig` that has at least as many
edges left when dead ends are removed; asked for {edges} as well, `eap-ig` has {asked}.
Held-out prompts are those of another seed. How gates are trained was settled on the tasks
`induction` and `pronoun`."""

Measured = Mapping[str, float]


@cache
def engines() -> tuple[cf.IncrementalEngine, cf.IncrementalEngine]:
    """Pose the question, and pose it again with prompts that no method sees."""
    model = cf.load_model(MODEL)
    seen, unseen = (
        cf.IncrementalEngine(cf.make_problem(model, TASK, n_prompts=N_PROMPTS, seed=seed))
        for seed in (0, 1)
    )
    return seen, unseen


def n_asked() -> int:
    """Return how many edges every method is asked for."""
    return round(SHARE * engines()[0].graph.n_edges)


def trained(name: str, seed: int) -> Measured:
    """Train masks, and take as many edges by eap-ig as are then left."""
    method = METHODS.find(name)
    settings = settled(method, {"n_edges": n_asked(), "seed": seed})
    circuit = search(engines()[0], method, *settings).circuit
    return {**measured(circuit), **prefixed("eap-ig", measured(attributed(circuit.n_edges)))}


def asked() -> Measured:
    """Measure what eap-ig gives where it is asked for as many edges."""
    return measured(ranked().top(n_asked()).connected())


def attributed(n_edges: int) -> cf.Circuit:
    """Return the first circuit of eap-ig's ranking that has so many edges left."""
    circuits = (ranked().top(n).connected() for n in count(n_edges))
    return next(circuit for circuit in circuits if circuit.n_edges >= n_edges)


@cache
def ranked() -> cf.EdgeScores:
    """Return eap-ig's scores."""
    method = METHODS.find("eap-ig")
    scores: cf.EdgeScores = method.scores(engines()[0], method.options())
    return scores


def measured(circuit: cf.Circuit) -> Measured:
    """Return a circuit's size, and its faithfulness on prompts seen and unseen."""
    seen, unseen = (share_of(engine, circuit) for engine in engines())
    return {"edges": circuit.n_edges, "seen": seen, "unseen": unseen}


def prefixed(name: str, values: Measured) -> Measured:
    """Return the values under names that say what they are of."""
    return {f"{name} {key}": value for key, value in values.items()}


def table_of(results: Mapping[str, Measured]) -> list[list[str]]:
    """Return a row of cells for each training."""
    rows = [
        ["", "seed", "edges left", "faithfulness", "on held-out prompts", "`eap-ig`: edges left"]
        + ["faithfulness", "on held-out prompts"]
    ]
    for name in LEARNED:
        for seed in SEEDS:
            found = results[f"{name} {seed}"]
            cells = [*_cells(found, ""), *_cells(found, "eap-ig ")]
            rows.append([f"`{name}`", str(seed), *cells])
    return rows


def _cells(found: Measured, prefix: str) -> Sequence[str]:
    edges, seen, unseen = (found[f"{prefix}{key}"] for key in ("edges", "seen", "unseen"))
    return f"{edges:.0f}", f"{seen:.2f}", f"{unseen:.2f}"


def text_of(results: Mapping[str, Measured]) -> str:
    """Return what the page says above the table."""
    alike = results["eap-ig"]
    shown = f"{alike['edges']:.0f} with {alike['seen']:.2f} ({alike['unseen']:.2f} held out)"
    return TEXT.format(
        sparsity=1 - SHARE,
        model=MODEL,
        task=TASK,
        n_prompts=N_PROMPTS,
        edges=n_asked(),
        asked=shown,
    )
