"""What makes units active, against TransformerLens' own hooks and lists that are sorted by hand."""

from copy import copy
from dataclasses import replace

import pytest
import torch

import circuitfind as cf
from circuitfind.dictionaries.activations import JumpRelu
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.units import latents_of
from circuitfind.errors import GraphError, LimitError, MethodError, TaskError
from circuitfind.graph import Units
from circuitfind.models.dictionaries import with_dictionaries
from circuitfind.tasks.plain_text import LONGEST, MOST_TOKENS, cut_text
from tests.oracles.checkpoints import D_MODEL, build

LATENT_THRESHOLDS = {
    "mlp.hook_in": 2.0,
    "hook_mlp_out": 2.0,
    "hook_attn_out": 0.0,
    "attn.hook_z": 0.0,
}
"""Above which random latents are active at some positions and not at others."""

BEFORE = 8
"""How many tokens of a context stand before its token."""


def prompts_of(seed=0):
    """Return prompts of two lengths, some of which begin alike."""
    drawn = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 9, (n,), generator=drawn).tolist() for n in (16, 16, 11, 16, 11, 16)]
    rows.append([*rows[0][:12], 3, 4, 3, 4])
    return cf.collate([cf.Pair(row, [9, *row[1:]], [[5]], [[6]]) for row in rows])


def problem_with(model, *units, prompts=None):
    graph = cf.heads_and_mlps(model.shape, units=units)
    return cf.make_problem(model, prompts or prompts_of(), graph=graph)


def by_hand(active, values, tokens, n_shown):
    """Describe a unit from what it is at every position, given where it is active.

    Returns:
        Frequency, tokens with their means and shares, contexts with their values.
    """
    sums, found = {}, []
    ranked = sorted(
        (-abs(float(values[row, at])), row, at) for row, at in active.nonzero().tolist()
    )
    for _, row, at in ranked:
        sums.setdefault(int(tokens[row, at]), []).append(float(values[row, at]))
        text = tokens[row, max(0, at - BEFORE) : at + 1].tolist()
        is_new = all(
            (row != r or abs(at - a) > BEFORE)
            and text != tokens[r, max(0, a - BEFORE) : a + 1].tolist()
            for _, r, a in found
        )
        if is_new and len(found) < n_shown:
            found.append((float(values[row, at]), row, at))
    whole = sum(abs(value) for each in sums.values() for value in each)
    shares = {token: sum(map(abs, each)) / whole for token, each in sums.items()}
    most = sorted(shares, key=lambda token: -shares[token])[:n_shown]
    return [(t, sum(sums[t]) / len(sums[t]), shares[t]) for t in most], found


def check(use, active, values, prompts, n_shown):
    tokens, contexts = by_hand(active & prompts.real, values, prompts.clean, n_shown)
    n_active = int((active & prompts.real).sum())
    assert n_active
    assert use.frequency == pytest.approx(n_active / int(prompts.real.sum()))
    assert [each.token for each in use.tokens] == [token for token, _, _ in tokens]
    for found, (_, mean, share) in zip(use.tokens, tokens, strict=True):
        assert found.activation == pytest.approx(mean, abs=1e-5)
        assert found.share == pytest.approx(share, abs=1e-5)
    assert [(each.row, each.position) for each in use.contexts] == [c[1:] for c in contexts]
    for found, (value, row, at) in zip(use.contexts, contexts, strict=True):
        assert found.activation == pytest.approx(value, abs=1e-5)
        shown = [str(token) for token in prompts.clean[row, : int(prompts.lengths[row])].tolist()]
        assert found.token == shown[at]
        assert found.before.split() == shown[max(0, at - BEFORE) : at]
        assert found.after.split() == shown[at + 1 : at + 5]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_neurons_are_described_by_what_the_hook_point_sees(family):
    """Activations of Llama's gated neurons have both signs; GPT-2's are hardly below 0."""
    model, prompts = cf.load_model(build(family, n_layers=2, dtype=torch.float32)), prompts_of()
    numbers = tuple(range(0, 48, 5))
    uses = cf.unit_uses(problem_with(model, Units(1, "neuron", numbers)), n_shown=3)
    assert [use.name for use in uses] == [f"m1.n{number}" for number in numbers]
    with torch.no_grad():
        post = model.hooks.read(prompts.clean, None, "blocks.1.mlp.hook_post")
    for use, number in zip(uses, numbers, strict=True):
        values = post[..., number].masked_fill(~prompts.real, 0)
        active = values.abs() >= 0.1 * values.abs().max()
        check(use, active, values, prompts, 3)
        assert use.effect is None
    assert min(use.frequency for use in uses) < 0.9
    strongest = [use.contexts[0].activation for use in uses]
    assert (min(strongest) < 0) == (family == "llama") and max(strongest) > 0


@pytest.mark.parametrize(
    ("reads", "writes"),
    [
        ("mlp.hook_in", "hook_mlp_out"),
        ("hook_mlp_out", "hook_mlp_out"),
        ("hook_attn_out", "hook_attn_out"),
        ("attn.hook_z", "attn.hook_z"),
    ],
)
def test_latents_are_described_by_what_the_encoder_reads_there(reads, writes):
    model, prompts = cf.load_model(build("gpt2", n_layers=2, dtype=torch.float32)), prompts_of()
    drawn = torch.Generator().manual_seed(1)
    encoder, decoder = torch.randn(2, 24, D_MODEL, generator=drawn)
    bias, thresholds = torch.full((24,), -0.3), torch.full((24,), LATENT_THRESHOLDS[reads])
    one = Dictionary(
        "one", Site(1, reads, writes), encoder, bias, JumpRelu(thresholds), decoder,
        torch.zeros(D_MODEL),
    )  # fmt: skip
    with torch.no_grad():
        read = model.hooks.read(prompts.clean, None, f"blocks.1.{reads}")
        read = read.flatten(2) if read.ndim == 4 else read
    asked = problem_with(with_dictionaries(model, {1: one}), latents_of(one, (4, 20)))
    for use, number in zip(cf.unit_uses(asked, n_shown=4), (4, 20), strict=True):
        assert use.name == f"{'a' if 'attn' in reads else 'm'}1.f{number}"
        before = read @ encoder[number] + bias[number]
        check(use, before > thresholds[number], before, prompts, 4)


@pytest.fixture(scope="module")
def latents():
    """A problem of a model that reads words, with three latents as writers."""
    model = cf.load_model("ioi-small")
    (made,) = (each for each in cf.embedded_dictionaries(model) if each.site.layer == 1)
    model = with_dictionaries(model, {1: made})
    prompts = cf.find_task("ioi").write_prompts(model.vocabulary, n=6, seed=0)
    return problem_with(model, latents_of(made, (0, 271, 511)), prompts=prompts)


def circuit_of(problem, effects):
    graph = problem.graph
    values = torch.full(graph.edge_mask.shape, torch.nan)
    for edge, value in effects.items():
        values[graph.index(edge)] = torch.nan if value is None else value
    return cf.Circuit(graph, graph.mask_of(effects), values)


def test_units_of_a_circuit_come_by_the_sum_of_the_effects_of_their_kept_edges(latents):
    kept = {"m1.f511->a2.h0.q": 0.25, "m1.f511->logits": -0.05, "m1.f0->logits": -0.5}
    circuit = circuit_of(latents, {**kept, "m1.f0->a3.h0.v": None, "embed->m1.f271": 0.75})
    cut = circuit_of(latents, {"m1.f511->m3": 9.0})
    circuit = replace(circuit, effects=circuit.effects.where(~cut.kept, cut.effects))
    found = cf.unit_uses(latents, circuit)
    assert [(use.name, use.effect) for use in found] == [
        ("m1.f0", pytest.approx(-0.5)),
        ("m1.f511", pytest.approx(0.2)),
        ("m1.f271", None),
    ]
    alone = {use.name: use for use in cf.unit_uses(latents)}
    assert [replace(use, effect=None) for use in found] == [alone[use.name] for use in found]
    whole = replace(circuit, effects=None)
    assert {use.effect for use in cf.unit_uses(latents, whole)} == {None}


def test_units_that_no_kept_edge_touches_are_left_out(latents):
    assert cf.unit_uses(latents, cf.Circuit.of_edges(latents, ["embed->logits"])) == ()
    touched = cf.Circuit.of_edges(latents, ["embed->m1.f0", "m1.rest->logits"])
    assert [use.name for use in cf.unit_uses(latents, touched)] == ["m1.f0"]


def test_a_unit_that_is_never_active_has_no_context(latents):
    never = latents.prompts.select([0])
    never = replace(never, clean=torch.zeros_like(never.clean))
    (use,) = (u for u in cf.unit_uses(replace(latents, prompts=never)) if u.name == "m1.f271")
    assert (use.frequency, use.tokens, use.contexts) == (0, (), ())


def test_a_context_is_the_text_of_the_prompt(latents):
    for use in cf.unit_uses(latents):
        for each in use.contexts:
            tokens = latents.prompts.clean[each.row].tolist()
            text = latents.model.vocabulary.decode(tokens)
            assert each.before + each.token + each.after in text
            assert each.token.strip() == latents.model.vocabulary.decode([tokens[each.position]])
    first = cf.unit_uses(latents)[0].contexts[0]
    assert f"[{first.token.strip()}]" in str(first) and str(first).endswith(")")


# A text


def test_a_text_is_read_as_its_pieces_would_be(latents):
    words = latents.model.vocabulary.decode(latents.prompts.clean[:4].flatten().tolist())
    told = []
    found = cf.unit_uses(latents, text=words, tell=told.append)
    n_tokens, n_positions = latents.prompts.clean[:4].numel(), latents.model.n_positions
    assert n_tokens > n_positions
    pieces, real = cut_text(latents.model, words, lambda message: None)
    assert told == [f"activations on {n_tokens} tokens of the text, in {len(pieces)} pieces"]
    rows = [row[keep].tolist() for row, keep in zip(pieces, real, strict=True)]
    asked = replace(
        latents, prompts=cf.collate([cf.Pair(row, [row[0] ^ 1, *row[1:]], [[5]]) for row in rows])
    )
    assert found == cf.unit_uses(asked)
    assert found != cf.unit_uses(latents)


def test_a_long_text_is_cut_and_that_is_said(latents):
    told = []
    pieces = cut_text(latents.model, "Mary went to the store. " * 40_000, told.append)
    assert int(pieces.real.sum()) == MOST_TOKENS
    assert pieces.tokens.shape[1] <= min(latents.model.n_positions, LONGEST)
    assert told[0] == "the text is long: only its first 100,000 tokens are read"


def test_pieces_begin_as_prompts_do_and_hold_the_text_in_order(latents):
    model = latents.model
    text = "Mary and John went to the store. " * 21
    started = replace(model.vocabulary, bos=7)
    of = copy(model)
    of.vocabulary, of.n_positions = started, 16
    pieces, real = cut_text(of, text, lambda message: None)
    assert set(pieces[:, 0].tolist()) == {7} and pieces.shape[1] <= 16
    tokens = [token for row, keep in zip(pieces, real, strict=True) for token in row[keep][1:]]
    assert [int(token) for token in tokens] == model.vocabulary.encode(text)
    lengths = real.sum(1)
    assert int(lengths.max() - lengths.min()) < len(pieces)


def test_words_that_the_model_does_not_know_are_named(latents):
    told = []
    cf.unit_uses(latents, text="Mary met Zaphod and Zaphod met Trillian", tell=told.append)
    assert told[0] == ("the model has no token for 3 parts of the text: 'Zaphod', 'Trillian'")


def test_what_cannot_be_described_is_refused(latents):
    model = latents.model
    with pytest.raises(MethodError, match="has no neurons and no latents: its MLPs write as a"):
        cf.unit_uses(cf.make_problem(model, "ioi", n_prompts=2))
    other = cf.heads_and_mlps(model.shape)
    with pytest.raises(
        GraphError, match="it has other neurons or latents: no units, and 3 latents of m1"
    ):
        cf.unit_uses(latents, cf.Circuit(other, other.edge_mask))
    with pytest.raises(LimitError, match="shown must be a whole number from 1 to 100"):
        cf.unit_uses(latents, n_shown=0)
    with pytest.raises(TaskError, match="nothing that the model can read"):
        cf.unit_uses(latents, text=" ")
    silent = problem_with(
        cf.load_model(build("gpt2", n_layers=2, dtype=torch.float32)), Units(1, "neuron", (3,))
    )
    with pytest.raises(TaskError, match="reads no text; leave the text out"):
        cf.unit_uses(silent, text="Mary")


def test_a_notebook_shows_a_table(latents):
    found = cf.unit_uses(latents)
    shown = found._repr_html_()
    assert "<th>contexts</th>" in shown and "m1.f271" in shown
    assert repr(found) == "<UnitUses: 3 units: m1.f0, m1.f271, m1.f511>"
    assert found.to_frame()["unit"].tolist() == ["m1.f0", "m1.f271", "m1.f511"]
