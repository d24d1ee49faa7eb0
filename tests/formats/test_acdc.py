"""ACDC's edge names, against its own counts and names written out by hand."""

import json

import pytest
import torch

from circuitfind.circuit import Circuit
from circuitfind.errors import CircuitFileError
from circuitfind.formats.acdc import read, write
from tests.formats.conftest import GPT2_SMALL, SPLIT, circuit_of
from tests.test_graph import GROUPED, SMALL


def rows_of(circuit):
    return {
        (r, tuple(i), s, tuple(j)): present
        for r, i, s, j, present, _ in json.loads(write(circuit))["subgraph"]
    }


def test_gpt2_small_has_as_many_edges_as_acdc_counts():
    rows = rows_of(Circuit(GPT2_SMALL, GPT2_SMALL.edge_mask))
    assert len(rows) == 33_367
    inside = [r for r, _, s, _ in rows if r.endswith(("hook_mlp_out", "attn.hook_result"))]
    assert len(rows) - len(inside) == 32_923
    assert all(rows.values())


NAMES = {
    "embed->a0.h1.q": (
        "blocks.0.hook_q_input",
        (None, None, 1),
        "blocks.0.hook_resid_pre",
        (None,),
    ),
    "a0.h1->a1.h0.v": (
        "blocks.1.hook_v_input",
        (None, None, 0),
        "blocks.0.attn.hook_result",
        (None, None, 1),
    ),
    "m0->m1": ("blocks.1.hook_mlp_in", (None,), "blocks.0.hook_mlp_out", (None,)),
    "m1->logits": ("blocks.1.hook_resid_post", (None,), "blocks.1.hook_mlp_out", (None,)),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_edge_has_the_name_that_acdc_gives_it(name):
    present = [
        ends for ends, kept in rows_of(Circuit(SMALL, SMALL.mask_of([name]))).items() if kept
    ]
    ours = [
        ends for ends in present if not ends[0].endswith(("mlp_out", "hook_result", "_q", "_v"))
    ]
    assert ours == [NAMES[name]]


def test_two_embeddings_have_acdcs_names():
    ours = rows_of(Circuit(SPLIT, SPLIT.mask_of(["pos_embed->m0"])))
    assert ours[("blocks.0.hook_mlp_in", (None,), "hook_pos_embed", (None,))]
    assert not ours[("blocks.0.hook_mlp_in", (None,), "hook_embed", (None,))]


def test_a_port_is_fed_iff_an_edge_leads_into_it():
    rows = rows_of(Circuit(SMALL, SMALL.mask_of(["embed->a0.h1.q"])))
    one = (None, None, 1)
    assert rows[("blocks.0.attn.hook_q", one, "blocks.0.hook_q_input", one)]
    assert not rows[("blocks.0.attn.hook_k", one, "blocks.0.hook_k_input", one)]
    assert rows[("blocks.0.attn.hook_result", one, "blocks.0.attn.hook_k", one)]


def test_a_file_without_our_header_and_effects_is_read_with_the_graph():
    circuit = circuit_of(SMALL)
    content = json.loads(write(circuit))
    rows = [row[:5] for row in content["subgraph"] if row[4]]
    found = read(json.dumps({"subgraph": rows}), SMALL)
    assert torch.equal(found.kept, circuit.kept)
    with pytest.raises(CircuitFileError, match="name the model"):
        read(json.dumps({"subgraph": rows}))


def test_an_edge_that_the_model_does_not_have_is_refused():
    row = ["blocks.9.hook_mlp_in", [None], "blocks.0.hook_mlp_out", [None], True]
    with pytest.raises(CircuitFileError, match="this model has no edge from .*hook_mlp_out.* to"):
        read(json.dumps({"subgraph": [row]}), SMALL)


def test_what_acdc_cannot_express_is_refused():
    with pytest.raises(CircuitFileError, match="do not know key/value heads that query heads"):
        write(Circuit(GROUPED, GROUPED.edge_mask))
