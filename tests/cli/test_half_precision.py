"""Checkpoints in half precision give what a float32 copy of the same weights gives."""

import json
import re
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch

from circuitfind.engine import incremental
from circuitfind.models import narrow
from circuitfind.models.loading import load_model
from circuitfind.models.precision import precision_note
from circuitfind.models.zoo.training import word_tokenizer
from tests.oracles.checkpoints import D_VOCAB, build
from tests.timing import without_times

SIX = ["gpt2", "gpt-neox-parallel", "llama", "qwen3", "gemma2", "phi"]
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
METHODS = {
    "acdc": ["--threshold", 0.02],
    "exact": ["--edges", 40],
    "eap-ig": ["--edges", 40],
}
# Every command on every family takes minutes: two of each kind stand for the others.
QUICK = [("llama", "bfloat16"), ("gpt2", "float16")]
SLOW = [pair for pair in product(SIX, TYPES) if pair not in QUICK]
EVERY = [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)]
WORDS = [first + second for first in "abcdefghi" for second in "abcdefgh"][: D_VOCAB - 1]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("family", SIX)
def test_acdc_decides_as_on_a_float32_copy(family, dtype, cli, tmp_path):
    write_pairs_and_models(tmp_path, family, TYPES[dtype], n_layers=1)
    for name in ("half", "copy"):
        words = ["pairs.jsonl", "--model", name, *METHODS["acdc"], "--out", f"{name}-run"]
        answer = done(cli("discover", *words))
        said = f"the {dtype} weights of 'half' are computed with in float32"
        assert (said in answer.err) == (name == "half")
    assert_same(tmp_path / "half-run", tmp_path / "copy-run", "decisions.jsonl")


@pytest.mark.parametrize(("family", "dtype"), QUICK)
def test_mlps_of_large_models_are_kept_in_half_precision_to_the_same_result(
    family, dtype, cli, tmp_path, monkeypatch
):
    monkeypatch.setattr(narrow, "_WORTH", 1)
    write_pairs_and_models(tmp_path, family, TYPES[dtype], n_layers=2)
    half, copy = (load_model(tmp_path / name) for name in ("half", "copy"))
    mlps = sum(
        weight.numel()
        for name, weight in build(family, n_layers=2).named_parameters()
        if "mlp" in name and weight.ndim == 2
    )
    assert copy.weight_bytes - half.weight_bytes == 2 * mlps > 0
    assert half.fingerprint == copy.fingerprint
    tokens = torch.arange(12)[None]
    assert torch.equal(half.own_logits(tokens), copy.own_logits(tokens))
    for method, options in METHODS.items():
        for name in ("half", "copy"):
            words = ["--model", name, "--method", method, *options, "--out", f"{name}-{method}"]
            done(cli("discover", "pairs.jsonl", *words))
        assert_same(tmp_path / f"half-{method}", tmp_path / f"copy-{method}", "decisions.jsonl")
    each = re.search(r"take ([\d.]+) bytes each", precision_note(half))
    assert 2 < float(each[1]) < 4


@pytest.mark.parametrize(("family", "dtype"), EVERY)
def test_every_command_gives_what_it_gives_on_a_float32_copy(family, dtype, cli, tmp_path):
    write_pairs_and_models(tmp_path, family, TYPES[dtype], n_layers=1)
    for name in ("half", "copy"):
        for method, options in METHODS.items():
            words = ["--model", name, "--method", method, *options]
            done(cli("discover", "pairs.jsonl", *words, "--out", f"{name}-{method}"))
        said = f"the {dtype} weights of 'half' are computed with in float32"
        answer = done(cli("patch", "pairs.jsonl", "--model", name, "--out", f"{name}-patch"))
        assert (said in answer.err) == (name == "half")
        answer = done(cli("evaluate", f"{name}-exact", "--quick"))
        assert (said in answer.err) == (name == "half")
        two = [f"{name}-exact", f"{name}-eap-ig"]
        answer = done(cli("compare", *two, "--out", f"{name}-compare"))
        assert (said in answer.err) == (name == "half")
        answer = done(cli("report", f"{name}-acdc"))
        assert (said in answer.err) == (name == "half")
        repeat = ["--vary", "resamples", "--repetitions", 1]
        answer = done(cli("stability", f"{name}-exact", *repeat))
        assert answer.err.count(said) == (name == "half")
        shown = cli("inspect", name, "--json").json
        weights = sum(weight.numel() for weight in build(family, n_layers=1).parameters())
        # A fused projection is held apart as well.
        assert 4 * weights <= 1.01e6 * shown["memory of the weights, MB"] < 6 * weights
    for method in METHODS:
        assert_same(tmp_path / f"half-{method}", tmp_path / f"copy-{method}", "decisions.jsonl")
    assert_same(tmp_path / "half-patch", tmp_path / "copy-patch", "patching.safetensors")
    half, copy = (figures_of(tmp_path / run) for run in ("half-exact", "copy-exact"))
    assert half.pop("notes") == [
        f"the {dtype} weights of 'half' are computed with in float32, and take 4 bytes each"
    ]
    assert copy.pop("notes") == []
    assert half == copy


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["ioi-small", "llama-4l"])
def test_a_search_with_rounded_weights_is_not_lost_at_its_end(name, dtype, cli):
    words = ["--dtype", dtype, "--prompts", 4, "--threshold", 0.5]
    answer = done(cli("discover", "ioi", "--model", name, *words, "--out", "run"))
    assert "drift" in answer.out and "do not trust" not in answer.out


def test_a_search_that_drifts_too_far_is_kept_and_said_not_to_be_trusted(
    cli, program, tmp_path, monkeypatch
):
    monkeypatch.setitem(incremental._DRIFT, torch.float64, -1.0)
    words = ["discover", "program", "--model", program, "--prompts", 8, "--threshold", 0.01]
    answer = done(cli(*words, "--out", "run"))
    assert re.search("more than the -1e.00 that rounding explains: do not trust", answer.out)
    search = json.loads((tmp_path / "run" / "scorecard.json").read_text())["search"]
    assert search["drift"] > search["drift_allowed"]


@pytest.mark.parametrize("dtype", TYPES)
def test_weights_are_rounded_to_the_type_that_is_asked_for(dtype, tmp_path):
    exact, half = build("llama", dtype=torch.float32), build("llama", dtype=TYPES[dtype])
    half_copy = half.float()
    exact.save_pretrained(tmp_path / "exact")
    word_tokenizer(WORDS).save_pretrained(tmp_path / "exact")
    for source in (exact, tmp_path / "exact"):
        model = load_model(source, dtype=dtype)
        assert (model.weights_dtype, model.dtype) == (TYPES[dtype], torch.float32)
        assert model.fingerprint == load_model(half_copy).fingerprint


@pytest.mark.parametrize(("stored", "said"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_weights_have_the_type_of_their_file_whatever_the_configuration_says(
    stored, said, tmp_path
):
    model = build("llama", dtype=getattr(torch, stored), n_layers=1)
    model.save_pretrained(tmp_path)
    word_tokenizer(WORDS).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": said}))
    loaded = load_model(tmp_path)
    assert (loaded.weights_dtype, loaded.dtype) == (getattr(torch, stored), torch.float32)
    assert loaded.fingerprint == load_model(model.float()).fingerprint


# ------------------------------------------------------------------------------- helpers


def write_pairs_and_models(folder: Path, family: str, dtype: torch.dtype, n_layers: int) -> None:
    """Write a model in half precision, a float32 copy of it, and pairs of prompts for both."""
    model = build(family, dtype=dtype, n_layers=n_layers)
    model.save_pretrained(folder / "half")
    model.float().save_pretrained(folder / "copy")
    word_tokenizer(WORDS).save_pretrained(folder / "half")
    for file in (folder / "half").glob("tokenizer*"):
        shutil.copy(file, folder / "copy")
    rows = [
        {
            "clean": " ".join(WORDS[row : row + 3]),
            "corrupted": f"{WORDS[row + 3]} {WORDS[row + 1]} {WORDS[row + 2]}",
            "answer": WORDS[row + 4],
            "wrong_answer": WORDS[row + 5],
        }
        for row in range(4)
    ]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def done(answer):
    assert answer.code == 0, answer.err
    return answer


def assert_same(left: Path, right: Path, file: str) -> None:
    assert (left / file).read_bytes() == (right / file).read_bytes()


def figures_of(run: Path) -> dict:
    """Return what a run's scorecard and evaluation say, apart from the time they took."""
    stored = json.loads((run / "scorecard.json").read_text())
    stored["evaluation"] = json.loads((run / "evaluation.json").read_text())["evaluation"]
    stored["search"] = without_times(stored["search"])
    del stored["evaluation"]["seconds"]
    notes = stored["scorecard"].pop("notes")
    assert stored["evaluation"].pop("notes") == notes
    return {
        "notes": notes,
        **{name: stored[name] for name in ("scorecard", "search", "evaluation")},
    }
