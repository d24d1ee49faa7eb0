"""What the circuits of a sweep share stands beside what their layers would share by chance."""

from math import comb

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.directories.config import RunConfig
from circuitfind.granularity import heads_and_mlps
from circuitfind.shape import ModelShape
from circuitfind.sweeps.agreement import comparison, stabilities

GRAPH = heads_and_mlps(ModelShape(1, 4, 4, 8, 2, 9, has_mlp=False))
OTHER = heads_and_mlps(ModelShape(1, 2, 2, 8, 2, 9, has_mlp=False))
NOTHING = torch.zeros_like(GRAPH.edge_mask)


def config(method, seed):
    return RunConfig("ioi", "m", method, {"threshold": 0.1}, seed=seed)


def reading(*heads):
    """A circuit of edges from the embedding into the values of some heads."""
    return Circuit(GRAPH, GRAPH.mask_of(f"embed->a0.h{head}.v" for head in heads))


FOUND = [
    (config("acdc", 0), reading(0, 1)),
    (config("acdc", 1), reading(0, 2)),
    (config("exact", 0), reading(0, 1)),
    (config("exact", 1), Circuit(GRAPH, NOTHING)),
    (config("eap", 0), Circuit(OTHER, OTHER.edge_mask)),
]
# Two of four edges each: they share 0, 1 or 2 of 4, 3 or 2.
EXPECTED = sum(
    comb(2, k) * comb(2, 2 - k) / comb(4, 2) * jaccard
    for k, jaccard in enumerate((0, 1 / 3, 1))
)  # fmt: skip


def test_agreement_is_corrected_for_chance_and_pairs_that_say_nothing_are_left_out():
    names, cells = comparison(FOUND)
    assert names == ["acdc 0.1", "exact 0.1", "eap 0.1"]
    assert set(cells) == {(0, 0), (0, 1), (1, 0)}
    same, between = cells[0, 0], cells[0, 1]
    assert (same.value, same.expected) == (pytest.approx(1 / 3), pytest.approx(EXPECTED))
    assert same.shade == pytest.approx((1 / 3 - EXPECTED) / (1 - EXPECTED))
    assert (between.value, between.expected) == (1, pytest.approx(EXPECTED))
    assert between.shade == 1


def test_stability_has_a_row_for_each_setting_with_two_circuits():
    (row,) = stabilities(FOUND)
    assert (row.label, row.group) == ("m, ioi: acdc 0.1", "acdc")
    assert row.values == (pytest.approx(1 / 3),)
    assert row.expected == pytest.approx(EXPECTED)
