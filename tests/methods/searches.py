"""ACDC beside the naive search of `tests.oracles.search`: every decision of both."""

from typing import Any

import pytest
import torch

from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.base import Decision, circuit_of
from tests.engine.problems import engine_of, loss_of, oracle_of
from tests.oracles import search as oracle_search
from tests.oracles.brute_force import BruteForce

GRAPH_OPTIONS = ("merge_qkv", "split_embedding", "crossing", "units", "dictionaries")


def assert_same_search(
    family: str,
    ablation: str,
    threshold: float,
    *,
    seed: int = 0,
    n_layers: int = 2,
    metric: str = "kl",
    lengths: tuple[int, ...] = (6, 6),
    where: oracle_search.Where | None = None,
    **options: Any,
) -> list[Decision]:
    """Search with the package and with the oracle and compare everything either says.

    Args:
        family: The family of the tiny model.
        ablation: What a cut edge carries.
        threshold: ACDC's.
        seed: Fixes the model and the prompts.
        n_layers: The model's.
        metric: What must not get worse.
        lengths: Tokens of each pair.
        where: Where places are, if edges are to be told apart by place.
        options: Other options of ACDC, of the graph and of the prompts.
    """
    graph = {name: options.pop(name) for name in GRAPH_OPTIONS if name in options}
    setting = {"seed": seed, "n_layers": n_layers, "lengths": lengths, **graph}
    setting["n_shared"] = options.pop("n_shared", 0)
    if where is not None:
        setting["place_of"] = where.place_of
    oracle = oracle_of(family, ablation, **setting)
    engine = engine_of(family, ablation, metric=metric, **setting)
    loss = loss_of(metric, oracle, engine.problem.prompts)
    naive = {**options, "order": options.get("order", "default"), "where": where}
    naive.pop("bounded", None)
    expected = oracle_search.acdc(oracle.logits, oracle.graph, loss, threshold, **naive)
    found = decided(engine, AcdcOptions(threshold=threshold, **options))
    assert_same_decisions(found, expected.decisions)
    assert torch.equal(circuit_of(engine.graph, found).kept, expected.kept)
    return found


def assert_same_decisions(found: list[Decision], expected: list[oracle_search.Decision]) -> None:
    groups = {d.edge.removeprefix("*->"): d for d in expected if d.edge.startswith("*->")}
    singly = [decision for decision in expected if not decision.edge.startswith("*->")]
    assert [decision.edge for decision in found] == [decision.edge for decision in singly]
    for ours, theirs in zip(found, singly, strict=True):
        group = groups.get(ours.edge.partition("->")[2])
        went_with_group = group is not None and not group.kept
        reason = "tested" if theirs.tested else "group" if went_with_group else "dead"
        assert (ours.edge, ours.kept, ours.reason) == (theirs.edge, theirs.kept, reason)
        if reason == "dead":
            assert ours.before is ours.after is ours.effect is None
            continue
        measured = theirs if reason == "tested" else group
        assert ours.before == pytest.approx(measured.before, abs=1e-9)
        assert ours.after == pytest.approx(measured.after, abs=1e-9)
        if reason == "tested":
            assert ours.effect == pytest.approx(measured.effect, abs=1e-9)
        else:
            assert ours.effect is None


def assert_right_where_made(
    engine: IncrementalEngine,
    oracle: BruteForce,
    options: AcdcOptions,
    where: oracle_search.Where | None = None,
) -> None:
    """Hold each decision to the oracle's losses, in whatever order they were made."""
    loss = loss_of("kl", oracle, engine.problem.prompts)
    kept, current = oracle.graph.edge_mask.clone(), loss(oracle.logits(oracle.graph.edge_mask))
    for decision in decided(engine, options):
        edge = oracle.graph.edge(decision.edge)
        dead = oracle_search.is_dead(oracle.graph, edge.reader, kept, where)
        assert (decision.reason == "dead") == dead
        trial = kept & ~oracle.graph.mask_of([decision.edge])
        if not dead:
            after = loss(oracle.logits(trial))
            assert decision.effect == pytest.approx(after - current, abs=1e-9)
            assert decision.kept == (after - current >= options.threshold)
        if not decision.kept:
            kept, current = trial, current if dead else after


def decided(
    engine: Any, options: AcdcOptions, resume: list[Decision] | None = None
) -> list[Decision]:
    progress = Acdc().run(engine, options, resume or [])
    return [decision for step in progress for decision in step.decisions]
