"""The page around the data: nothing in the data becomes markup, and nothing leaves the file."""

import base64
import hashlib
import html
import json
import re
from importlib.resources import files

import numpy as np
import pytest
import torch

from circuitfind.granularity import heads_and_mlps
from circuitfind.methods.base import Decision, circuit_of
from circuitfind.reports.page.attention import KINDS, MOST_LETTERS, choose
from circuitfind.reports.page.drawing import drawn_edges, drawn_graph, even_layout, layout_of
from circuitfind.reports.page.html import page_html, script_safe_json
from circuitfind.reports.page.numbers import finite, packed, packed_size, short
from circuitfind.shape import ModelShape

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "\u2028 \u2029 & \" ' ` ${1}",
    "<img src=x onerror=alert(1)>",
    "]]>",
    "{title}",
)
BLOCK = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.S)


def data_of(page: str):
    return json.loads(BLOCK.search(page)[1])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_back_as_they_were_and_open_no_element(name):
    page, harmless = page_html(name, {"runs": [{name: name}]}), page_html("x", {"runs": [{}]})
    assert data_of(page)["runs"] == [{name: name}]
    assert page.count("<script") == harmless.count("<script")
    assert page.count("</script") == harmless.count("</script")
    assert html.unescape(re.search(r"<title>(.*?)</title>", page, re.S)[1]) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_json_in_a_script_holds_no_letter_that_html_reads(name):
    text = script_safe_json([name])
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == [name]


def test_only_the_page_s_own_script_and_style_may_run_and_nothing_may_be_fetched():
    page = page_html("x", {"runs": []})
    policy = html.unescape(re.search(r'Content-Security-Policy" content="(.*?)"', page)[1])
    assert policy.startswith("default-src 'none'; ")
    for pattern, rule in (
        (r"<script>(.*?)</script>", "script"),
        (r"<style>(.*?)</style>", "style"),
    ):
        digest = hashlib.sha256(re.search(pattern, page, re.S)[1].encode()).digest()
        assert f"{rule}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert not re.search(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', page)


def test_the_built_page_names_the_licences_of_all_that_it_contains():
    assets = files("circuitfind.reports.page").joinpath("assets")
    notices = assets.joinpath("third-party.txt").read_text(encoding="utf-8")
    for package in ("d3-array", "d3-scale", "d3-selection", "d3-zoom"):
        assert re.search(rf"^{package} \d+\.\d+\.\d+ \(ISC\)$", notices, re.M)
    assert notices.count("Copyright") >= notices.count("-" * 72)


def unpacked(text: str, length: int, *, causal: bool) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(text), dtype="<u2") / 65535
    if not causal:
        return values.reshape(length, length)
    rows = np.zeros((length, length))
    rows[np.tril_indices(length)] = values
    return rows


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 20])
def test_packed_shares_come_back_to_within_half_a_step(length, *, causal):
    shares = torch.rand(length, length, generator=torch.Generator().manual_seed(length))
    shares = shares.tril() if causal else shares
    text = packed(shares, causal=causal)
    assert len(text) == packed_size(length, causal=causal)
    np.testing.assert_allclose(
        unpacked(text, length, causal=causal), shares.numpy(), rtol=0, atol=0.5 / 65535 + 1e-9
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, 0.0), (1 / 3, 0.3333333), (-1234567.89, -1234568.0), (float("nan"), None), (None, None)],
)
def test_numbers_keep_seven_digits_and_those_that_are_none_become_none(value, expected):
    assert short(value) == expected


def test_what_is_not_finite_becomes_none_wherever_it_is():
    value = {"a": [float("inf"), 1.5, {"b": float("nan")}], "c": ("x", None, 2)}
    assert finite(value) == {"a": [None, 1.5, {"b": None}], "c": ["x", None, 2]}


def test_all_heads_are_stored_where_they_fit():
    assert choose([15] * 4, ["a", "b"], ["a"], causal=True).heads == ("a", "b")


@pytest.mark.parametrize("length", [15, 60, 200, 900])
def test_patterns_never_take_more_than_their_share_of_the_file(length):
    heads = [f"a{layer}.h{head}" for layer in range(12) for head in range(12)]
    choice = choose([length] * 4, heads, heads[:30], causal=True)
    size = packed_size(length, causal=True) * choice.n_prompts * len(choice.heads) * len(KINDS)
    assert size <= MOST_LETTERS
    assert choice.n_prompts >= 1


def test_the_circuit_s_heads_go_before_the_others():
    heads = [str(head) for head in range(144)]
    assert choose([400] * 2, heads, heads[:3], causal=True).heads == tuple(heads[:3])


@pytest.mark.slow
def test_a_report_of_all_edges_of_gpt2_small_stays_below_five_megabytes():
    graph = heads_and_mlps(ModelShape(12, 12, 12, 768, 64, 50257))
    edges = graph.edges()
    assert len(edges) == 32_491
    random = torch.Generator().manual_seed(0)
    effects = torch.randn(len(edges), generator=random, dtype=torch.float64).tolist()
    decisions = [
        Decision(edge.name, effect > 1.3, "tested", effect / 3, 4 * effect / 3, effect)
        for edge, effect in zip(edges, effects, strict=True)
    ]
    circuit = circuit_of(graph, decisions)
    assert 2_500 < circuit.n_edges < 3_500
    run = {
        "graph": drawn_graph(graph, {}),
        "edges": drawn_edges(circuit, decisions),
        "layouts": {
            "circuit": layout_of(graph, circuit.edges, {}),
            "all": even_layout(graph, {}),
        },
        "attention": "x" * MOST_LETTERS,
    }
    assert len(page_html("large", {"runs": [run]}).encode()) < 5_000_000
