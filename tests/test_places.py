"""Places: which positions of which prompt they are, and what is refused."""

from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.errors import GraphError, MethodError, PromptError
from circuitfind.granularity import heads_and_mlps
from circuitfind.places import Places, every_position, named_places, places_of_spans
from circuitfind.placing import placed
from circuitfind.prompts import Pair, collate
from circuitfind.question import Question
from circuitfind.shape import ModelShape

SHAPE = ModelShape(2, 2, 2, d_model=4, d_head=2, d_vocab=5)


def names_of(places: Places) -> list[list[str]]:
    """Return the name of the place of each position of each prompt."""
    return [[places.names[number] for number in row] for row in places.of.tolist()]


def positions(**rows: list[int]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(row) for name, row in rows.items()}


def test_named_positions_and_what_lies_before_each_of_them():
    found = named_places(positions(IO=[1, 3], S1=[3, 1], end=[6, 5]), torch.tensor([7, 6]), width=7)
    first, second = names_of(found)
    assert first == ["..IO", "IO", "..S1", "S1", "..end", "..end", "end"]
    # The other order of the names; padding goes with the last position.
    assert second == ["..S1", "S1", "..IO", "IO", "..end", "end", "end"]
    assert found.names[-2:] == ("..end", "end"), "the order is that of the mean position"


def test_what_comes_after_the_last_named_position_is_a_place():
    found = named_places(positions(a=[1]), torch.tensor([4]), width=4)
    assert names_of(found) == [["..a", "a", "a..", "a.."]]


def test_two_names_of_one_position_count_once_by_the_first():
    found = named_places(positions(a=[1], b=[1]), torch.tensor([2]), width=2)
    assert names_of(found) == [["..a", "a"]]


def test_spans_begin_at_a_position_and_end_where_the_next_one_begins():
    starts = positions(subject=[1, 0], verb=[3, -1], end=[4, 2])
    found = places_of_spans(starts, torch.tensor([5, 4]), 5, "prompt {}".format)
    first, second = names_of(found)
    assert first == ["start", "subject", "subject", "verb", "end"]
    # No verb in the second prompt, and nothing before its subject.
    assert second == ["subject", "subject", "end", "end", "end"]


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({"a": [1], "b": [1]}, "the spans of line 7 begin at 1, 1; each must begin"),
        ({"a": [9]}, "from 0 to 3"),
        ({"start": [1]}, "'start'"),
    ],
)
def test_spans_that_cannot_be_told_apart_are_refused(starts, said):
    with pytest.raises(PromptError, match=said):
        places_of_spans(positions(**starts), torch.tensor([4]), 4, lambda row: "line 7")


def test_a_table_of_spans_has_a_row_for_each_prompt(tmp_path):
    prompts = collate([Pair([1, 2, 3], [1, 3, 3], [[1]]), Pair([1, 2], [3, 2], [[1]])])
    path = tmp_path / "spans.csv"
    path.write_text("prompt,first,last,length\n'a b',1,2,3\nb,0,,2\n")
    found = placed(prompts, str(path)).places
    assert found is not None and names_of(found) == [["start", "first", "last"], ["first"] * 3]
    for text, said in (
        ("first\n1\n", "has 1 rows and there are 2 prompts"),
        ("first\n1\nx\n", r"row 3: the span 'first' begins at 'x'"),
        ("first\n1\n7\n", "the spans of prompt 1 begin at 7"),
        ("", "is empty"),
    ):
        path.write_text(text)
        with pytest.raises(PromptError, match=said):
            placed(prompts, str(path))


def test_a_table_of_spans_holds_for_the_prompts_of_its_seed_only(tmp_path):
    path = tmp_path / "spans.csv"
    path.write_text("names,rest\n" + "1,5\n" * 4)
    question = Question("ioi", "gpt-4l", n_prompts=4, places=str(path))
    model = cf.load_model("gpt-4l")
    assert question.problem(model).graph.places == ("start", "names", "rest")
    assert question.held_out(model) is None
    with pytest.raises(PromptError, match="are those of the prompts of seed 0"):
        question.problem(model, seed=3)


def test_every_position_needs_prompts_of_one_length():
    assert names_of(every_position(torch.tensor([3]), 3)) == [["0", "1", "2"]]
    with pytest.raises(PromptError, match="prompts of 2 to 3 tokens have no positions in common"):
        every_position(torch.tensor([2, 3]), 3)


def test_prompts_without_names_or_spans_say_so():
    prompts = collate([Pair([1, 2], [1, 3], [[1]])])
    with pytest.raises(PromptError, match="name no positions"):
        placed(prompts, "named")
    with pytest.raises(PromptError, match="have no spans"):
        placed(prompts, "spans")
    with pytest.raises(PromptError, match="no places are called 'words'; choose one of named"):
        placed(prompts, "words")


def test_places_follow_the_rows_and_the_padding_of_prompts():
    pairs = [Pair([1, 2, 3], [1, 3, 3], [[1]]), Pair([1, 2], [3, 2], [[1]])]
    prompts = placed(collate(pairs), Places(("a", "b"), torch.tensor([[0, 1, 1], [1, 0, 0]])))
    second = prompts.select([1])
    assert second.places is not None and second.places.of.tolist() == [[1, 0]]
    others = replace(prompts, places=Places(("a", "b"), torch.tensor([[0, 0, 1], [1, 0, 0]])))
    assert others.fingerprint != prompts.fingerprint != replace(prompts, places=None).fingerprint


@pytest.mark.parametrize("name", ["", "a b", "S1@x", "a->b", "x" * 41, "\n"])
def test_names_that_cannot_stand_in_an_edge_are_refused(name):
    with pytest.raises(GraphError, match="a place cannot be called"):
        Places((name,), torch.zeros(1, 2, dtype=torch.long))


def test_places_that_do_not_fit_their_prompts_are_refused():
    with pytest.raises(PromptError, match="there are 2 places and positions of the places 0 to 2"):
        Places(("a", "b"), torch.tensor([[0, 1, 2]]))
    model = cf.load_model("gpt-4l")
    some = Places(("a", "b"), torch.tensor([[0, 1]]))
    with pytest.raises(PromptError, match=r"of shape \(1, 2\) and the prompts have \(4, "):
        cf.make_problem(model, "ioi", n_prompts=4, places=some)


def test_a_place_is_a_field_of_a_reader_and_an_edge_is_written_with_it():
    graph = heads_and_mlps(SHAPE).at_places(["S2", "end"])
    reader = graph.readers[graph.reader_index["a1.h0.k@S2"]]
    assert (reader.component, reader.port, reader.place) == ("a1.h0", "k", "S2")
    edge = graph.edge("a0.h1->a1.h0.k@S2")
    assert edge.name == "a0.h1->a1.h0.k@S2" and graph.index(edge) == graph.index(edge.name)
    assert graph.n_edges == 2 * graph.merged.n_edges
    assert graph.merged == heads_and_mlps(SHAPE)
    with pytest.raises(GraphError, match="no reader named 'a1.h0.k'"):
        graph.edge("a0.h1->a1.h0.k")


def test_a_graph_cannot_have_places_twice_or_two_of_one_name():
    graph = heads_and_mlps(SHAPE)
    with pytest.raises(GraphError, match="has places already: a, b"):
        graph.at_places(["a", "b"]).at_places(["c"])
    with pytest.raises(GraphError, match="two places are called 'a'"):
        graph.at_places(["a", "a"])
    with pytest.raises(GraphError, match="give fewer places"):
        graph.at_places([f"p{number}" for number in range(10**7)])


def test_the_network_has_a_node_for_each_component_and_place():
    graph = heads_and_mlps(SHAPE).at_places(["s", "t"])
    kept = graph.mask_of(["embed->a0.h0.k@s", "a0.h0->m0@t"])
    network = graph.network(kept)
    assert network.nodes["a0.h0@t"]["place"] == "t"
    assert network.has_edge("embed@s", "a0.h0.kv@s", "embed->a0.h0.k@s")
    # What a key reads at one place reaches the head wherever it may attend to it.
    assert network.has_edge("a0.h0.kv@s", "a0.h0@t", "attention")
    assert network.has_edge("a0.h0@t", "m0@t", "a0.h0->m0@t")


def test_dead_ends_are_told_by_place():
    graph = heads_and_mlps(SHAPE).at_places(["s", "t"])
    live = ["embed->a0.h0.k@s", "a0.h0->m0@t", "m0->logits@t"]
    dead = ["embed->a0.h1.q@s", "a0.h1->logits@t", "m0->logits@s"]
    circuit = cf.Circuit.of_edges(graph, [*live, *dead]).connected()
    assert sorted(edge.name for edge in circuit.edges) == sorted(live)


def test_a_circuit_with_places_is_saved_and_read(tmp_path):
    graph = heads_and_mlps(SHAPE).at_places(["S1+1", "..S2"])
    circuit = cf.Circuit.of_edges(graph, ["embed->a0.h0.k@..S2", "a0.h0->logits@S1+1"])
    circuit.save(tmp_path / "c.json")
    found = cf.load_circuit(tmp_path / "c.json")
    assert found.graph == graph and torch.equal(found.kept, circuit.kept)
    with pytest.raises(cf.CircuitfindError, match="tells other places apart: S1"):
        cf.load_circuit(tmp_path / "c.json", heads_and_mlps(SHAPE).at_places(["a", "b"]))


def test_a_question_with_places_builds_its_problem_and_held_out_prompts():
    question = Question("ioi", "gpt-4l", n_prompts=8, places="named")
    problem = question.problem(model := cf.load_model("gpt-4l"))
    assert {"IO", "S1", "S2", "end", "..S2"} <= set(problem.graph.places)
    there = question.held_out(model)
    assert there is not None and there.graph == problem.graph
    with pytest.raises(PromptError, match="choose one of named, each, spans, or give"):
        replace(question, places="words").validate()


def test_a_graph_with_places_needs_prompts_with_the_same():
    model = cf.load_model("gpt-4l")
    graph = heads_and_mlps(model.shape).at_places(["a", "b"])
    with pytest.raises(MethodError, match="tells the places a, b apart and the prompts have none"):
        cf.make_problem(model, "ioi", n_prompts=4, graph=graph)
    with pytest.raises(PromptError, match="and the graph tells a, b apart"):
        cf.make_problem(model, "ioi", n_prompts=4, graph=graph, places="named")
