"""Paths whose readers keep their norm's scale are those of hooks on the Hugging Face model."""

from dataclasses import replace

import pytest
import torch

from circuitfind.errors import CircuitfindError, ModelError
from circuitfind.metrics import find_metric
from circuitfind.models.loading import load_model
from circuitfind.models.norms import normed_as
from circuitfind.patching.files import load_patching, save_patching
from circuitfind.patching.path import PATH, path_patch
from circuitfind.problem import assemble
from circuitfind.reports.patching import patch_report
from circuitfind.tasks import find_task
from tests.counting import CountingModel
from tests.engine.problems import EXACT, problem_of
from tests.oracles.checkpoints import D_HEAD, D_MODEL, build
from tests.patching.hooked import Hooked
from tests.patching.test_path import LENGTHS, at_end
from tests.type_checks import types_checked

PATHS = (
    ("embed", "a0.h1.q"),
    ("embed", "a0.h1.k", "m0", "logits"),
    ("embed", "m1"),
    ("embed", "logits"),
    ("a0.h2", "m0"),
    ("a0.h2", "a1.h1.q"),
    ("m0", "a1.h1.v"),
    ("m0", "a1.h1.k", "m1"),
    ("a1.h3", "m1", "logits"),
)
"""A sender, what the path leads through, and a receiver."""


class Frozen(Hooked):
    """Follows a path: adds to what a reader's weights read what a frozen norm passes on."""

    def follow(self, base, source, names):
        """Return the logits."""
        sender, *readers = names
        change = self.written(sender, source) - self.written(sender, base)
        for reader in readers:
            hooks = self.hooks(base, reader, change)
            if reader == readers[-1]:
                return self.run(base, hooks)
            change = sum(
                self.written(component, base, hooks) - self.written(component, base)
                for component in fed_by(reader)
            )
        raise AssertionError

    def written(self, writer, tokens, hooks=None):
        """Return what a writer adds to the stream."""
        if writer == "embed":
            return self.read(tokens, "resid_pre", 0, hooks)
        if writer.startswith("m"):
            return self.read(tokens, "mlp_out", int(writer[1:]), hooks)
        layer, head = (int(part[1:]) for part in writer.split("."))
        z = self.read(tokens, "head", layer, hooks)[:, :, head]
        block = self.blocks[layer]
        weight = block.attn.c_proj.weight if self.is_gpt2 else block.self_attn.o_proj.weight.T
        return z @ weight[head * D_HEAD : (head + 1) * D_HEAD]

    def hooks(self, base, reader, change):
        """Return the hook that lets a reader read a change."""
        if reader == "logits":
            final = self.model.transformer.ln_f if self.is_gpt2 else self.model.model.norm
            passed = self.passed(final, self.read(base, "resid_post", len(self.blocks) - 1), change)
            return {("unembedded", 0): lambda normed: normed + passed}
        layer = int(reader[1])
        block, entering = self.blocks[layer], self.read(base, "resid_pre", layer)
        before_attention = block.ln_1 if self.is_gpt2 else block.input_layernorm
        before_mlp = block.ln_2 if self.is_gpt2 else block.post_attention_layernorm
        if reader.startswith("m"):
            middle = entering + self.read(base, "attn_out", layer)
            passed = self.passed(before_mlp, middle, change)
            return {("mlp_in", layer): lambda normed: normed + passed}
        _, head, port = reader.split(".")
        passed = self.passed(before_attention, entering, change)
        return {(port, layer): self.added(block, port, int(head.strip("hkv")), passed)}

    def passed(self, norm, entering, change):
        """Return what a norm passes on of a change, divided by what it divides the base run by."""
        if self.is_gpt2:
            scale = (entering.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt()
            return (change - change.mean(-1, keepdim=True)) / scale * norm.weight
        scale = (entering.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        return change / scale * norm.weight

    def added(self, block, port, head, passed):
        columns = slice(head * D_HEAD, (head + 1) * D_HEAD)
        if self.is_gpt2:
            first = D_MODEL * "qkv".index(port)
            weight = block.attn.c_attn.weight[:, first : first + D_MODEL]
        else:
            weight = getattr(block.self_attn, f"{port}_proj").weight.T
        more = passed @ weight[:, columns]

        def hook(heads):
            heads = heads.clone()
            heads[:, :, head] += more
            return heads

        return hook


def fed_by(reader):
    """Return the components that a reader belongs to; two heads share a key or value."""
    if "kv" in reader:
        first = 2 * int(reader[5])
        return [f"{reader[:2]}.h{first}", f"{reader[:2]}.h{first + 1}"]
    return [reader.rpartition(".")[0] or reader]


@pytest.mark.parametrize("mode", ["noising", "denoising"])
@pytest.mark.parametrize("names", PATHS, ids="-".join)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_path_with_frozen_norms_is_that_of_hooks(family, names, mode):
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    if family == "llama":
        # Heads 0 and 1 share a key/value head.
        names = tuple(name.replace("h1.k", "kv0.k").replace("h1.v", "kv0.v") for name in names)
    prompts = problem.prompts
    base, source = prompts.clean, prompts.corrupted
    if mode == "denoising":
        base, source = source, base
    sender, *via, receiver = names
    found = path_patch(problem, [sender], [receiver], via=via, mode=mode, norm="frozen")
    oracle = Frozen(build(family, n_layers=2), family)
    expected = at_end(oracle.follow(base, source, names), prompts)
    torch.testing.assert_close(found.values[PATH][0, 0], expected, **EXACT)
    anew = path_patch(problem, [sender], [receiver], via=via, mode=mode)
    assert (found.values[PATH] - anew.values[PATH]).abs().max() > 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_effects_of_all_writers_on_a_logit_difference_add_up(family):
    problem = problem_of(family, metric="logit-difference", lengths=LENGTHS)
    found = path_patch(problem, receivers=["logits"], norm="frozen")
    oracle = Frozen(build(family, n_layers=2), family)
    base, source = (
        oracle.read(tokens, "resid_post", 1)
        for tokens in (problem.prompts.clean, problem.prompts.corrupted)
    )
    logits = oracle.run(
        problem.prompts.clean, oracle.hooks(problem.prompts.clean, "logits", source - base)
    )
    changes = (found.values[PATH][:, 0] - found.base).sum(0)
    torch.testing.assert_close(changes, at_end(logits, problem.prompts) - found.base, **EXACT)


@pytest.mark.parametrize("metric", ["kl", "loss"])
def test_frozen_logits_are_read_by_any_metric(metric):
    problem = problem_of("gpt2", metric=metric, lengths=LENGTHS)
    found = path_patch(problem, ["m1"], ["logits"], norm="frozen").values[PATH][0, 0]
    oracle = Frozen(build("gpt2", n_layers=2), "gpt2")
    prompts = problem.prompts
    logits = oracle.follow(prompts.clean, prompts.corrupted, ("m1", "logits"))[:, -1:]
    full = oracle.run(prompts.clean)[:, -1:]
    torch.testing.assert_close(found, problem.metric(logits, prompts, full), **EXACT)


def test_without_norms_there_is_no_scale_to_freeze():
    model = load_model("hist")
    prompts = find_task("program").write_prompts(model.vocabulary, 8, 0)
    problem = assemble(model, prompts, find_metric("l2"))
    exact, frozen = (path_patch(problem, norm=norm).values[PATH] for norm in ("exact", "frozen"))
    torch.testing.assert_close(frozen, exact, equal_nan=True)


def test_the_result_says_that_the_norm_was_frozen(tmp_path):
    problem = problem_of("gpt2", metric="logit-difference", lengths=LENGTHS)
    found = path_patch(problem, ["embed"], ["m0"], norm="frozen")
    save_patching(found, tmp_path / "paths.json")
    note = "readers norm a changed input with the scale of the unpatched run (norm frozen)"
    assert load_patching(tmp_path / "paths.json").notes == (note,)
    assert f"- note: {note}" in patch_report(found).markdown()
    assert path_patch(problem, ["embed"], ["m0"]).notes == ()


def test_an_unknown_norm_is_refused():
    problem = problem_of("gpt2", metric="logit-difference")
    said = "no norm named 'none'; choose one of exact, frozen"
    with types_checked(check=False), pytest.raises(CircuitfindError, match=said):
        path_patch(problem, norm="none")


def test_a_model_that_cannot_freeze_its_norms_is_refused():
    class Bare(CountingModel):
        def project(self, layer, port, heads, stream):
            return self.model.project(layer, port, heads, stream)

    problem = problem_of("gpt2", metric="logit-difference")
    bare = replace(problem, model=Bare(problem.model))
    with pytest.raises(CircuitfindError, match="cannot keep the scale of a norm"):
        path_patch(bare, ["embed"], ["m0"], norm="frozen")
    exact = path_patch(bare, ["embed"], ["m0"]).values[PATH]
    torch.testing.assert_close(exact, path_patch(problem, ["embed"], ["m0"]).values[PATH])


def test_what_is_not_a_norm_has_no_scale():
    stream = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match="neither a layer norm nor an RMS norm"):
        normed_as(torch.nn.Tanh(), stream, stream)
