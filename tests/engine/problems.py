"""Problems about the tiny models of `tests.oracles`, each with the oracle that knows its answer.

The package and the oracle are given models of their own, built twice from one seed, so that nothing
either does to its model can reach the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from circuitfind.ablations import Ablation
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.engine.direction import with_direction
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Graph, Units
from circuitfind.metrics import Metric, find_metric
from circuitfind.models.base import ResidualModel
from circuitfind.models.dictionaries import with_dictionaries
from circuitfind.models.loading import load_model
from circuitfind.models.readings import Reading
from circuitfind.places import Places
from circuitfind.problem import Problem, assemble
from circuitfind.prompts import Pair, PromptPairs, collate
from tests.oracles.brute_force import BruteForce
from tests.oracles.checkpoints import D_VOCAB, FAMILIES, build, float64_throughout, random_pairs
from tests.oracles.search import Loss
from tests.oracles.units import by_block

EXACT = {"rtol": 0, "atol": 1e-9}
"""Sums in float64 taken in another order."""

BRIDGED = [name for name, family in FAMILIES.items() if family.bridge_is_right]
"""The families that TransformerLens gets right, so that the package accepts them."""

N_LAYERS = 2
N_TOKENS = 6


SHIFTED = ((0, 1, 1, 2, 3, 3), (1, 0, 2, 2, 2, 3))
"""Places that lie elsewhere in the second prompt, two of them in the other order."""

PlaceOf = tuple[tuple[int, ...], ...] | None
"""The number of the place of each position of each prompt."""


@cache
def model_of(family: str, seed: int = 0, n_layers: int = N_LAYERS) -> ResidualModel:
    """Return the package's view of a tiny float64 model."""
    with float64_throughout():
        return load_model(build(family, seed, n_layers=n_layers))


@cache
def prompts_of(
    seed: int = 0,
    lengths: tuple[int, ...] = (N_TOKENS, N_TOKENS),
    *,
    n_shared: int = 0,
    steps: tuple[int, ...] | None = None,
) -> PromptPairs:
    """Return random pairs with two right answers and a wrong one at every step.

    Args:
        seed: Fixes the tokens.
        lengths: Tokens of each pair.
        n_shared: How many tokens of a pair are the same at its beginning; the next differs.
        steps: Where the metric reads; at the end unless given.
    """
    generator = torch.Generator().manual_seed(seed)
    clean, corrupted = random_pairs(seed, len(lengths), max(lengths))
    if n_shared:
        corrupted[:, :n_shared] = clean[:, :n_shared]
        corrupted[:, n_shared] = (clean[:, n_shared] + 1) % D_VOCAB
    pairs = []
    for row, length in enumerate(lengths):
        answers = [torch.randperm(D_VOCAB, generator=generator)[:3].tolist() for _ in steps or [0]]
        pairs.append(
            Pair(
                clean[row, :length].tolist(),
                corrupted[row, :length].tolist(),
                answers=[tokens[:2] for tokens in answers],
                wrong_answers=[tokens[2:] for tokens in answers],
                steps=steps,
            )
        )
    return collate(pairs)


def problem_of(
    family: str,
    ablation: str | Ablation = "resample",
    metric: str | Metric = "kl",
    *,
    seed: int = 0,
    n_layers: int = N_LAYERS,
    lengths: tuple[int, ...] = (N_TOKENS, N_TOKENS),
    n_shared: int = 0,
    steps: tuple[int, ...] | None = None,
    place_of: PlaceOf = None,
    crossing: bool = False,
    units: tuple[Units, ...] = (),
    dictionaries: tuple[Dictionary, ...] = (),
    **graph: bool,
) -> Problem:
    """Return a problem about a tiny model and `prompts_of`; `graph` are the graph's options."""
    model = model_of(family, seed, n_layers)
    if dictionaries:
        model = with_dictionaries(model, dictionaries)
    prompts = prompts_of(seed, lengths, n_shared=n_shared, steps=steps)
    prompts = replace(prompts, places=places_from(place_of))
    chosen = find_metric(metric) if isinstance(metric, str) else metric
    return assemble(
        model,
        prompts,
        with_direction(chosen, model, prompts),
        ablation,
        graph=with_places(
            heads_and_mlps(model.shape, units=units, **graph),
            place_of,
            crossing=crossing,
            causal=model.causal,
        ),
    )


def places_from(place_of: PlaceOf) -> Places | None:
    """Return places called p0, p1 and so on."""
    if place_of is None:
        return None
    of = torch.tensor(place_of)
    return Places(tuple(f"p{number}" for number in range(int(of.max()) + 1)), of)


def with_places(
    graph: Graph, place_of: PlaceOf, *, crossing: bool = False, causal: bool = True
) -> Graph:
    """Return the graph with these places, and with the moves between them."""
    places = places_from(place_of)
    if places is None:
        return graph
    graph = graph.at_places(places.names)
    return graph.crossing(places.moves(causal=causal)) if crossing else graph


@cache
def engine_of(family: str, ablation: str = "resample", **options: Any) -> IncrementalEngine:
    """Return the engine for a problem (see `problem_of`)."""
    return IncrementalEngine(problem_of(family, ablation, **options))


@cache
def oracle_of(
    family: str,
    ablation: str = "resample",
    *,
    seed: int = 0,
    n_layers: int = N_LAYERS,
    lengths: tuple[int, ...] = (N_TOKENS, N_TOKENS),
    n_shared: int = 0,
    steps: tuple[int, ...] | None = None,
    place_of: PlaceOf = None,
    crossing: bool = False,
    units: tuple[Units, ...] = (),
    dictionaries: tuple[Dictionary, ...] = (),
    **graph: bool,
) -> BruteForce:
    """Return the brute-force oracle for the problem of the same arguments."""
    prompts = prompts_of(seed, lengths, n_shared=n_shared, steps=steps)
    return BruteForce(
        build(family, seed, n_layers=n_layers),
        family,
        prompts.clean,
        prompts.corrupted,
        with_places(
            heads_and_mlps(FAMILIES[family].shape(n_layers), units=units, **graph),
            place_of,
            crossing=crossing,
            causal=family != "bidirectional",
        ),
        ablation,  # type: ignore[arg-type]
        prompts.real if prompts.padded else None,
        None if place_of is None else torch.tensor(place_of),
        by_block(dictionaries),
    )


def loss_of(metric: str, oracle: BruteForce, prompts: PromptPairs) -> Loss:
    """Return a loss at the last position from logits, written apart from `circuitfind.metrics`."""
    full = oracle.logits(oracle.graph.edge_mask)[:, -1]

    def kl(logits: Tensor) -> float:
        return float(
            torch.nn.functional.kl_div(
                logits[:, -1].log_softmax(-1),
                full.log_softmax(-1),
                log_target=True,
                reduction="batchmean",
            )
        )

    def negative_logit_difference(logits: Tensor) -> float:
        rows = zip(logits[:, -1], prompts.answers[:, 0], prompts.wrong_answers[:, 0], strict=True)
        differences = [row[right].mean() - row[wrong].mean() for row, right, wrong in rows]
        return -float(sum(differences) / len(differences))

    return {"kl": kl, "logit-difference": negative_logit_difference}[metric]


def random_mask(graph: Graph, seed: int, share: float = 0.5) -> Tensor:
    """Return a mask that keeps about this share of the edges."""
    drawn = torch.rand(graph.edge_mask.shape, generator=torch.Generator().manual_seed(seed))
    return graph.edge_mask & (drawn < share)


def logits_at_steps(engine: IncrementalEngine, final: Tensor) -> Tensor:
    """Return all logits at the metric's steps, from a final stream."""
    with torch.no_grad():
        return engine.problem.model.logits(engine.readout.at_steps(final))


def watch(
    model: ResidualModel, parts: Sequence[str], note: Callable[..., None], monkeypatch: Any
) -> None:
    """Have the name and the arguments of each part of a model noted when it is run.

    Readings and steps count as the parts whose work they do.
    """
    for layer in range(model.shape.n_layers):
        model.reading(layer, None)  # compared with the parts when it is first asked for
        for port, n_heads in (("q", "n_heads"), ("k", "n_kv_heads"), ("v", "n_kv_heads")):
            for head in range(getattr(model.shape, n_heads)):
                model.reading(layer, port, head)
    reading = cache(partial(_noted_reading, model.reading, note))
    monkeypatch.setattr(model, "reading", lambda layer, port, head=0: reading(layer, port, head))
    steps = {"mlp_post": "mlp"} if "mlp" in parts else {}
    for name, said in {**steps, **{name: name for name in parts}}.items():
        original = getattr(model, name)

        def noted(*args: Any, said: str = said, original: Any = original) -> Any:
            note(said, *args)
            return original(*args)

        monkeypatch.setattr(model, name, noted)


class _NotedReading(Reading):
    """Tells when it is read through."""

    note: Callable[[Tensor], None]

    def read(self, product: Tensor, factor: Tensor) -> Tensor:
        values = super().read(product, factor)
        self.note(values)
        return values


def _noted_reading(original: Any, note: Any, layer: int, port: Any, head: int) -> Any:
    reading = original(layer, port, head)
    # An MLP's pre-activations are noted with the rest of it.
    if reading is None or port is None:
        return reading
    noted = _NotedReading(reading.norm, reading.weights, reading.constant)
    object.__setattr__(noted, "note", lambda values: note("project", layer, port, [head], values))
    return noted
