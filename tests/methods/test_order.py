"""The order in which ACDC tests edges, when it is the user's own."""

import random

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.directory import RunDirectory
from circuitfind.errors import MethodError, RunDirectoryError
from circuitfind.methods.acdc import Acdc, AcdcOptions
from circuitfind.methods.order import visits
from circuitfind.methods.search import search
from tests.engine.problems import engine_of, loss_of, oracle_of, prompts_of
from tests.oracles import search as oracle_search


def test_all_readers_in_the_usual_order_are_the_usual_search():
    engine = engine_of("gpt2")
    readers = [engine.graph.readers[reader] for reader, _ in visits(engine.graph, "random", seed=4)]
    usual = AcdcOptions(threshold=0.02, order="random", seed=4)
    # Writers into a reader come in the order of their heads, which a list of readers does not say.
    names = [decision.edge for decision in decided(engine, usual)]
    assert decided(engine, AcdcOptions(threshold=0.02, order=names)) == decided(engine, usual)
    by_reader = decided(engine, AcdcOptions(threshold=0.02, order=readers))
    assert list(dict.fromkeys(d.edge.partition("->")[2] for d in by_reader)) == [
        reader.name for reader in readers
    ]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_decision_is_right_where_it_was_made_in_any_order_of_edges(family):
    engine, oracle = engine_of(family), oracle_of(family)
    names = [edge.name for edge in engine.graph.edges()]
    random.Random(1).shuffle(names)
    loss = loss_of("kl", oracle, prompts_of())
    kept, current = oracle.graph.edge_mask.clone(), 0.0
    found = decided(engine, AcdcOptions(threshold=0.02, order=names))
    assert [decision.edge for decision in found] == names
    for decision in found:
        trial = kept & ~oracle.graph.mask_of([decision.edge])
        if decision.effect is not None:
            after = loss(oracle.logits(trial))
            assert decision.effect == pytest.approx(after - current, abs=1e-9)
            assert decision.kept == (after - current >= 0.02)
        else:
            assert loss(oracle.logits(trial)) == pytest.approx(current, abs=1e-12)
        if not decision.kept:
            kept, current = trial, current if decision.effect is None else after
    assert any(decision.kept for decision in found)


@pytest.mark.parametrize("group_qkv", [False, True])
def test_a_search_in_ones_own_order_resumes_after_any_of_its_decisions(group_qkv):
    engine = engine_of("gpt2")
    names = [edge.name for edge in engine.graph.edges()]
    random.Random(2).shuffle(names)
    options = AcdcOptions(threshold=0.02, order=names, group_qkv=group_qkv)
    whole = decided(engine, options)
    assert any(d.reason == "group" for d in whole) == group_qkv
    for stop in range(0, len(whole), 61):
        assert decided(engine, options, resume=whole[:stop]) == whole


def test_a_file_names_a_reader_or_an_edge_on_each_line(tmp_path):
    engine, file = engine_of("gpt2"), tmp_path / "order.txt"
    names = list(oracle_search.readers_in_order(engine.graph, "default"))
    file.write_text("# from the logits back\n\n" + "\n".join(names) + "\n")
    found = decided(engine, AcdcOptions(threshold=0.02, order=str(file)))
    assert found == decided(engine, AcdcOptions(threshold=0.02))


def test_a_reader_without_a_place_stands_for_those_at_all_places():
    engine = engine_of("gpt2", n_layers=1, place_of=((0, 0, 1, 1, 2, 2),) * 2)
    names = list(oracle_search.readers_in_order(engine.graph.merged, "default"))
    found, usual = (visits(engine.graph, order, seed=0) for order in (names, "backward-index"))
    # The usual order visits all heads at a place before another place.
    assert sorted(found) == sorted(usual) and found[:6] == usual[:6]
    assert [engine.graph.readers[reader].name for reader, _ in found[6:9]] == [
        f"a0.h3.v@p{place}" for place in (2, 1, 0)
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names[1:], "lacks 6 of 62 edges, first 'm1->logits'"),
        (lambda names: [*names, "m1->logits"], "has 'm1->logits' twice"),
        (lambda names: [*names, "m7"], "names 'm7', which is neither a reader nor an edge"),
        (lambda names: [*names, "m1->m0"], "cannot be used: no edge 'm1->m0'"),
    ],
)
def test_an_order_that_does_not_name_every_edge_once_is_refused_in_a_line(change, message):
    engine = engine_of("gpt2")
    names = list(oracle_search.readers_in_order(engine.graph, "default"))
    message = message.replace("6 of 62", f"{n_into_logits(engine)} of {engine.graph.n_edges}")
    with pytest.raises(MethodError, match=message) as raised:
        decided(engine, AcdcOptions(threshold=0.02, order=change(names)))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    (tmp_path / "order.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MethodError, match="no order named .*nowhere.txt"):
        AcdcOptions(threshold=0.1, order=str(tmp_path / "nowhere.txt"))
    with pytest.raises(MethodError, match="cannot read the order in .*order.bin"):
        AcdcOptions(threshold=0.1, order=str(tmp_path / "order.bin"))


def test_a_run_keeps_the_names_so_that_an_edited_file_is_another_run(tmp_path):
    file = tmp_path / "order.txt"
    options = {"threshold": 0.1, "order": str(file)}
    config = RunConfig("ioi", "ioi-small", "acdc", options)
    file.write_text("logits\nm0\n")
    begun = config.pinned()
    assert begun.options["order"] == ["logits", "m0"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(begun.to_json())
    RunDirectory.open(tmp_path / "run", config.pinned())
    file.write_text("m0\nlogits\n")
    with pytest.raises(RunDirectoryError, match="holds another run .not the same order."):
        RunDirectory.open(tmp_path / "run", config.pinned())


# ------------------------------------------------------------------------------- helpers


def decided(engine, options, resume=()):
    return list(search(engine, Acdc(), options, resume=resume).decisions)


def n_into_logits(engine):
    return int(engine.graph.edge_mask[:, -1].sum())
