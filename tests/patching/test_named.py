"""Activations patched by name, and by a function of one's own, are those of TransformerLens."""

from types import SimpleNamespace

import pytest
import torch
from transformer_lens import patching as lens

from circuitfind.errors import CircuitfindError
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.patching.circuits import circuit_of
from circuitfind.patching.sweep import Sweep, patch
from circuitfind.problem import assemble
from circuitfind.reports.heatmap import draw_heatmap
from circuitfind.reports.patching import patch_report
from circuitfind.tasks import find_task
from tests.engine.problems import EXACT, model_of, problem_of
from tests.patching.test_transformer_lens import CLOSE, lens_inputs, problem_for
from tests.type_checks import types_checked

LAYER_POS_HEAD = ("layer", "pos", "head_index")
SETTERS = {
    "position": (("layer", "pos"), lens.layer_pos_patch_setter),
    "head": (LAYER_POS_HEAD, lens.layer_pos_head_vector_patch_setter),
    "pattern": (("layer", "head_index", "pos"), lens.layer_head_pos_pattern_patch_setter),
}


@pytest.mark.parametrize(
    ("family", "name", "kind"),
    [
        ("gpt2", "pre", "position"),
        ("gpt2", "post", "position"),
        ("gpt2", "z", "head"),
        ("gpt2", "attn_scores", "pattern"),
        ("llama", "post", "position"),
        ("llama", "pre_linear", "position"),
        ("llama", "rot_q", "head"),
        ("llama", "rot_k", "head"),
        ("llama", "attn_scores", "pattern"),
        ("gpt-neox-parallel", "post", "position"),
        ("gpt-neox-parallel", "attn_scores", "pattern"),
        ("gemma2", "post", "position"),
        ("gemma2", "attn_scores", "pattern"),
    ],
)
def test_a_name_is_the_generic_activation_patch_of_transformer_lens(family, name, kind):
    axes, setter = SETTERS[kind]
    bridge, corrupted, cache, metric = lens_inputs(family)
    if name == "rot_k":
        # TransformerLens counts key/value heads for `k` and `v` alone.
        axes, setter = ("layer", "pos"), lens.layer_pos_patch_setter
    with torch.no_grad():
        expected = lens.generic_activation_patch(
            bridge, corrupted, cache, metric, setter, name, axes
        ).double()
    if kind == "pattern":
        expected = expected.transpose(1, 2)
    copy = whole_position if name == "rot_k" else None
    found = patch(problem_for(family), name, positions="each", setter=copy).mean(name)
    if name == "rot_k":
        found = found[..., 0]
    torch.testing.assert_close(found, expected, **CLOSE)
    assert found.std() > 1e-3


def whole_position(activation, donor, index):
    activation[index.mask] = donor[index.mask]
    return activation


def half_way(activation, donor, index):
    """Go half of the way, on a copy."""
    changed = (activation + donor) / 2
    return torch.where(spread(index.mask, activation), changed, activation)


def spread(mask, activation):
    return mask.view(*mask.shape, *[1] * (activation.ndim - 2))


def doubled(activation, donor, index):
    """Make no use of the donor."""
    activation[index.mask] *= 2
    return activation


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale:UserWarning")
@pytest.mark.parametrize("setter", [half_way, doubled, None])
@pytest.mark.parametrize(
    "name",
    [
        "hook_embed",
        "blocks.1.hook_resid_pre",
        "ln1.hook_scale",
        "mlp.hook_pre",
        "ln_final.hook_scale",
    ],
)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_setter_of_ones_own_is_a_hook_of_transformer_lens(family, name, setter):
    bridge, corrupted, cache, metric = lens_inputs(family)
    problem = problem_for(family)
    found = patch(problem, name, positions="each", setter=setter)
    points = [name] if name in bridge.hook_dict else [f"blocks.{n}.{name}" for n in range(2)]
    rows = []
    for point in points:
        for position in range(corrupted.shape[1]):
            mask = torch.arange(corrupted.shape[1]).eq(position).expand(corrupted.shape)

            def hook(activation, hook, donor=cache[point], mask=mask):
                change = setter or whole_position
                return change(activation.clone(), donor, SimpleNamespace(mask=mask))

            with torch.no_grad():
                logits = bridge.run_with_hooks(corrupted, fwd_hooks=[(point, hook)])
            rows.append(metric(logits))
    torch.testing.assert_close(found.mean(name).flatten(), torch.stack(rows), **EXACT)
    assert found.axes[name] == ("position",) if len(points) == 1 else ("layer", "position")
    assert bool(found.notes) == (setter is not None)


TABLE = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head", "q", "k", "v")


@pytest.mark.parametrize("mode", ["noising", "interchange"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_sites_of_the_table_are_the_same_by_their_names(family, mode):
    def taken(activation, donor, index):
        if index.head is None:
            activation[index.mask] = donor[index.mask]
        else:
            activation[:, :, index.head][index.mask] = donor[:, :, index.head][index.mask]
        return activation

    # Of two lengths, so that rows are padded.
    problem = problem_of(family, metric="logit-difference", lengths=(5, 3, 5))
    ours = patch(problem, ",".join(TABLE), positions="1,last", mode=mode)
    theirs = patch(problem, ",".join(TABLE), positions="1,last", mode=mode, setter=taken)
    assert theirs.axes == ours.axes
    for site in ours.sites:
        torch.testing.assert_close(theirs.values[site], ours.values[site], **EXACT)


def test_a_pattern_by_its_name_is_the_pattern_of_the_table():
    problem = problem_of("llama", metric="logit-difference")
    ours = patch(problem, "pattern,resid_mid", positions="each", layers="1")
    theirs = patch(
        problem, "attn.hook_pattern,blocks.1.hook_resid_mid", positions="each", layers="1"
    )
    for site, name in (("pattern", "attn.hook_pattern"), ("resid_mid", "blocks.1.hook_resid_mid")):
        expected = ours.values[site].flatten(0, -2)
        torch.testing.assert_close(theirs.values[name].flatten(0, -2), expected, **EXACT)


@pytest.mark.parametrize("metric", ["kl", "loss", "probability-difference"])
def test_any_metric_of_logits_can_be_asked_for(metric):
    problem = problem_of("gpt2", metric=metric)
    named, ours = (patch(problem, site, positions="all") for site in ("attn.hook_z", "head"))
    torch.testing.assert_close(named.values["attn.hook_z"], ours.values["head"], **EXACT)


def test_results_do_not_depend_on_how_much_runs_at_once():
    problem = problem_of("gpt2", metric="logit-difference", lengths=(5, 3, 6))
    together, apart = (patch(problem, "post,attn_scores", rows=rows) for rows in (1000, 2))
    for site in together.sites:
        torch.testing.assert_close(apart.values[site], together.values[site], **EXACT)


def test_an_interrupted_sweep_goes_on_to_the_same_values():
    sweep = Sweep(problem_of("gpt2", metric="logit-difference"), "post,head", rows=2)
    states = [checkpoint.state for checkpoint in sweep.steps()]
    *_, last = sweep.steps(states[len(states) // 2])
    assert all(torch.equal(states[-1][name], last.state[name]) for name in last.state)


def test_reports_and_heatmaps_show_activations_by_their_names():
    found = patch(problem_of("gpt2", metric="logit-difference"), "embed,post", positions="each")
    text = patch_report(found).markdown()
    assert "| embed |" in text and "| post |" in text
    for site in found.sites:
        assert "position" in draw_heatmap(found, site).svg()


@pytest.mark.parametrize(
    ("family", "name", "said"),
    [
        ("gpt2", "neuron", "no site named 'neuron'; choose from resid_pre.*attn.hook_attn_scores"),
        ("gpt2", "blocks.9.hook_resid_mid", "no site named 'blocks.9.hook_resid_mid'"),
        ("gpt2", "attn.hook_result", "use_attn_result"),
        ("gpt2", "embed.hook_in", "is of type torch.int64 and has axes of"),
        ("llama", "pos_embed", "the model does not compute 'hook_pos_embed'"),
        ("llama", "rotary_emb.hook_cos", "only numbers for every prompt and position"),
        ("gpt-j", "attn.hook_pattern", "can be read in this model and not changed"),
        ("gpt-j", "resid_mid", "this model has no resid_mid"),
    ],
)
def test_an_activation_that_cannot_be_patched_is_refused(family, name, said):
    with pytest.raises(CircuitfindError, match=said):
        patch(problem_of(family, metric="logit-difference"), name)


@pytest.mark.parametrize(
    ("setter", "said"),
    [
        (lambda activation, donor, index: None, "the setter returned None for an activation"),
        (lambda activation, donor, index: activation[:1], r"returned \(1, 6, 32\) for an"),
    ],
)
def test_what_a_setter_returns_is_checked(setter, said):
    with types_checked(check=False), pytest.raises(CircuitfindError, match=said):
        patch(problem_of("gpt2", metric="logit-difference"), "resid_pre", setter=setter)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sites": "post"}, "no site named 'post'; choose from resid_pre, .* is another kind"),
        ({"sites": "head", "setter": doubled}, "a setter needs a TransformerLens model"),
    ],
)
def test_a_model_without_names_says_so(options, said):
    model = load_model("hist")
    prompts = find_task("program").write_prompts(model.vocabulary, 8, 0)
    with pytest.raises(CircuitfindError, match=said):
        patch(assemble(model, prompts, find_metric("l2")), **options)


def test_a_metric_of_the_stream_is_refused():
    with pytest.raises(CircuitfindError, match="reads the final stream"):
        patch(problem_of("gpt2", metric="direction"), "post")


def test_no_circuit_is_made_of_activations_without_components():
    problem = problem_of("gpt2", metric="logit-difference")
    with pytest.raises(CircuitfindError, match="no component is known for the activation 'post'"):
        circuit_of(problem, patch(problem, "post,head", positions="all"))


def test_the_model_is_left_without_hooks():
    model = model_of("gpt2")
    patch(problem_of("gpt2", metric="logit-difference"), "post", positions="all")
    assert all(not point.fwd_hooks for point in model._bridge.hook_dict.values())
