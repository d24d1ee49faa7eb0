"""A model wired by hand with three known neurons, and latents: searches find just these."""

import itertools

import pytest
import torch

import circuitfind as cf
from circuitfind.dictionaries.activations import relu
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.granularity import heads_and_mlps
from circuitfind.graph import Units
from circuitfind.models.dictionaries import with_dictionaries
from circuitfind.models.loading import load_model
from circuitfind.prompts import Pair, collate
from circuitfind.question import make_problem
from circuitfind.sweeps.suite import FOLDER

N_NEURONS = 9
COUNTING = (1, 4, 6)
"""The neurons that count the ones."""

HEADS = range(3)
INTO_HEADS = {f"embed->a0.h{head}.v" for head in HEADS}
THRESHOLDS = (1e-6, 0.01)


@pytest.fixture(scope="module")
def counter():
    """The model that says 1 iff exactly one of three symbols is 1; see `gates.exactly_one`."""
    return load_model(FOLDER / "truth" / "exactly-one.json", dtype="float64")


@pytest.fixture(scope="module")
def transcoded(counter):
    """The same model with a transcoder whose latents are its neurons."""
    weights = {name: counter._block(0, f"mlp.{name}") for name in ("W_in", "b_in", "W_out")}
    dictionary = Dictionary(
        name="its own neurons",
        site=Site(0, "mlp.hook_in", "hook_mlp_out"),
        encoder=weights["W_in"].T,
        encoder_bias=weights["b_in"],
        activation=relu(N_NEURONS),
        decoder=weights["W_out"],
        decoder_bias=torch.zeros(weights["W_out"].shape[1]),
    )
    return with_dictionaries(counter, {0: dictionary})


def problem_of(model, *units, ablation="resample"):
    """Every triple of symbols against every other one."""
    texts = list(itertools.product((1, 2), repeat=3))
    pairs = [
        Pair([0, *clean], [0, *corrupted], [()], steps=[3])
        for clean, corrupted in itertools.permutations(texts, 2)
    ]
    graph = heads_and_mlps(model.shape, units=units)
    return make_problem(model, collate(pairs), metric="l2", ablation=ablation, graph=graph)


def found_in(problem, threshold=0.001):
    return {edge.name for edge in cf.discover(problem, threshold=threshold).circuit.edges}


def neurons(*numbers):
    return Units(0, "neuron", numbers)


def into_mlp(*inputs):
    return {f"a0.h{head}->{name}" for head in HEADS for name in inputs}


def test_it_says_one_iff_one_symbol_is_one(counter):
    texts = list(itertools.product((1, 2), repeat=3))
    said = counter.own_logits(torch.tensor([[0, *text] for text in texts]))[:, 1:, 0]
    for text, row in zip(texts, said, strict=True):
        assert torch.allclose(row, row.new_tensor(0.25 + (text.count(2) == 1))), text


@pytest.mark.parametrize("ablation", ["resample", "mean"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_acdc_finds_the_three_neurons_among_all(counter, ablation, threshold):
    problem = problem_of(counter, neurons(*range(N_NEURONS)), ablation=ablation)
    truth = INTO_HEADS | into_mlp("m0") | {f"m0.n{number}->logits" for number in COUNTING}
    assert found_in(problem, threshold) == truth


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_without_neurons_there_is_only_the_mlp(counter, threshold):
    found = found_in(problem_of(counter), threshold)
    assert found == INTO_HEADS | into_mlp("m0") | {"m0->logits"}


@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_a_neuron_that_is_not_listed_is_found_in_the_rest(counter, ablation):
    problem = problem_of(counter, neurons(0, 1, 2, 3, 4), ablation=ablation)
    truth = {"m0.n1->logits", "m0.n4->logits", "m0.rest->logits"}
    assert found_in(problem) == INTO_HEADS | into_mlp("m0") | truth


def test_under_zero_ablation_what_all_prompts_share_counts_too(counter):
    found = found_in(problem_of(counter, neurons(*range(N_NEURONS)), ablation="zero"))
    from_mlp = {edge for edge in found if edge.startswith("m0")}
    assert from_mlp == {f"m0.n{number}->logits" for number in (*COUNTING, 5)}


def test_every_single_cut_says_the_same(counter):
    decisions = cf.discover(
        problem_of(counter, neurons(*range(N_NEURONS))), "exact", threshold=1e-6
    ).decisions
    effects = {each.edge: abs(each.effect or 0) for each in decisions}
    of_neurons = {edge for edge, effect in effects.items() if edge[:4] == "m0.n" and effect > 1e-6}
    assert of_neurons == {f"m0.n{number}->logits" for number in COUNTING}
    assert max(effects[f"m0.{name}->logits"] for name in ("n0", "n2", "n3", "n5", "rest")) < 1e-20


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_latents_that_are_the_neurons_are_found_with_what_each_reads(transcoded, threshold):
    units = Units(0, "latent", tuple(range(N_NEURONS)), apart=True, error="fixed")
    names = [f"m0.f{number}" for number in COUNTING]
    truth = INTO_HEADS | into_mlp(*names) | {f"{name}->logits" for name in names}
    assert found_in(problem_of(transcoded, units), threshold) == truth


def test_a_dictionary_without_one_of_them_leaves_it_to_the_error(counter, transcoded):
    """The error follows nothing that is cut, so nothing but its own edge leads there."""
    whole = transcoded.dictionaries["m0"]
    some = torch.tensor([number for number in range(N_NEURONS) if number != COUNTING[1]])
    lacking = Dictionary(
        whole.name, Site(0, "mlp.hook_in", "hook_mlp_out"), whole.encoder[some],
        whole.encoder_bias[some], relu(len(some)), whole.decoder[some], whole.decoder_bias,
    )  # fmt: skip
    model = with_dictionaries(counter, {0: lacking})
    units = Units(0, "latent", tuple(range(len(some))), apart=True, error="fixed")
    names = ["m0.f1", "m0.f5"]
    truth = INTO_HEADS | into_mlp(*names) | {f"{name}->logits" for name in [*names, "m0.error"]}
    assert found_in(problem_of(model, units)) == truth


def test_the_three_neurons_alone_say_all_that_the_model_says(counter):
    problem = problem_of(counter, neurons(*range(N_NEURONS)))
    engine, graph = IncrementalEngine(problem), problem.graph
    truth = INTO_HEADS | into_mlp("m0") | {f"m0.n{number}->logits" for number in COUNTING}
    final = engine.recomputed(graph.mask_of(sorted(truth)))
    with torch.no_grad():
        said, expected = (
            problem.model.logits(engine.readout.at_steps(each))
            for each in (final, engine.recomputed(graph.edge_mask))
        )
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-9)


# ------------------------------------------------------------------ attention, and the stream

SYMBOLS = {"a": 7, "b": 8, "c": 9, "output": 12}
"""Where in the stream the heads bring each symbol, behind 3 tokens and 4 positions, and where the
MLP writes."""


def reading(model, rows):
    """Return the model with a dictionary of what its attention adds."""
    return with_dictionaries(model, [dictionary_of(model, "hook_attn_out", rows)])


def dictionary_of(model, hook, rows):
    """Return a dictionary.

    Args:
        model: The model.
        hook: What it reads and reconstructs.
        rows: For each latent, the symbol that it reads, and the one that it writes, if any.
    """
    width = model.shape.d_model
    encoder, decoder = torch.zeros(len(rows), width), torch.zeros(len(rows), width)
    for latent, (reads, writes) in enumerate(rows):
        encoder[latent, SYMBOLS[reads]] = 1
        if writes is not None:
            decoder[latent, SYMBOLS[writes]] = 1
    return Dictionary(
        "symbols", Site(0, hook, hook), encoder.double(), torch.zeros(len(rows)).double(),
        relu(len(rows)), decoder.double(), torch.zeros(width).double(),
    )  # fmt: skip


def of_attention(*numbers):
    return Units(0, "latent", numbers, error="live", of="attention")


@pytest.mark.parametrize("ablation", ["resample", "mean"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_latents_that_carry_the_symbols_are_found(counter, ablation, threshold):
    """Others are as active, and write nothing."""
    model = reading(counter, [("a", "a"), ("a", None), ("b", "b"), ("c", "c"), ("c", None)])
    problem = problem_of(model, of_attention(0, 1, 2, 3, 4), ablation=ablation)
    carried = {f"a0.f{number}->m0" for number in (0, 2, 3)}
    assert found_in(problem, threshold) == INTO_HEADS | carried | {"m0->logits"}


def test_one_that_is_not_listed_is_found_in_the_rest(counter):
    model = reading(counter, [("a", "a"), ("b", "b"), ("c", "c")])
    carried = {"a0.f0->m0", "a0.rest->m0", "m0->logits"}
    assert found_in(problem_of(model, of_attention(0))) == INTO_HEADS | carried


def test_a_symbol_that_no_latent_writes_is_in_the_error(counter):
    """The error is computed from what the heads receive, so the way to it is found too."""
    model = reading(counter, [("a", "a"), ("b", None), ("c", "c")])
    carried = {"a0.f0->m0", "a0.f2->m0", "a0.error->m0", "m0->logits"}
    assert found_in(problem_of(model, of_attention(0, 1, 2))) == INTO_HEADS | carried


@pytest.mark.parametrize("ablation", ["resample", "mean"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_latents_of_the_stream_that_carry_the_symbols_and_the_answer_are_found(
    counter, ablation, threshold
):
    """Between attention and MLP, and behind it; others are as active, and write nothing."""
    into = [("a", "a"), ("a", None), ("b", "b"), ("c", "c"), ("output", "output")]
    out = [("a", "a"), ("output", None), ("output", "output")]
    made = {"resid_mid": into, "resid_post": out}
    model = with_dictionaries(
        counter, [dictionary_of(counter, f"hook_{site}", rows) for site, rows in made.items()]
    )
    units = [
        Units(0, "latent", tuple(range(len(rows))), error="live", of=site)
        for site, rows in made.items()
    ]
    read = {f"a0.h{head}->mid0" for head in HEADS} | {"m0->post0"}
    carried = {f"mid0.f{number}->m0" for number in (0, 2, 3)} | {"post0.f2->logits"}
    found = found_in(problem_of(model, *units, ablation=ablation), threshold)
    assert found == INTO_HEADS | read | carried
