"""Results: what effects mean, which are significant, and files that outlive the process."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitfind.errors import CircuitfindError
from circuitfind.patching.files import load_patching, save_patching
from circuitfind.patching.result import PatchResult
from circuitfind.patching.sweep import patch
from circuitfind.reports.patching import patch_report
from tests.engine.problems import problem_of


def result_of(values, base=(0.0, 2.0), source=(4.0, 6.0)):
    """Return a result with one layer; `values` are a row of prompts per position."""
    values = torch.tensor(values).double()[None]
    names = tuple(map(str, range(values.shape[1])))
    return PatchResult(
        {"attn_out": values},
        {"attn_out": ("layer", "position")},
        {"layer": ("0",), "position": names},
        torch.tensor(base).double(),
        torch.tensor(source).double(),
        "denoising",
        "logit-difference",
        "logits",
        {"task": "ioi"},
    )


def test_an_effect_is_the_share_of_the_way_to_the_source():
    result = result_of([[0, 2], [4, 6], [2, 4], [-4, -2]])
    assert result.gap == 4
    assert result.effect("attn_out").tolist() == [[0, 1, 0.5, -1]]
    assert result.mean("attn_out").tolist() == [[1, 5, 3, -3]]


def test_the_error_is_that_of_the_mean_over_prompts():
    # Changes of 1 and 3 around a mean of 2, in a gap of 4.
    (row,) = result_of([[1, 5]]).rows()
    assert row.effect == 0.5
    assert math.isclose(row.error, math.sqrt(2) / math.sqrt(2) / 4)


def test_what_is_significant_is_large_and_sure():
    result = result_of([[0, 2], [4, 6], [-2, 0], [4, 2], [0.1, 2.1]])
    found = result.significant(0.05)
    # The fourth is as large as the third, but half of the prompts show nothing.
    assert [row.place["position"] for row in found] == ["1", "2"]
    assert [row.effect for row in found] == [1, -0.5]


def test_a_single_prompt_has_no_noise_to_ask_for():
    result = result_of([[1.0], [0.0]], base=(0.0,), source=(2.0,))
    assert [row.effect for row in result.significant(0.05)] == [0.5]


def test_files_give_back_what_was_saved(tmp_path):
    saved = patch(problem_of("llama", metric="logit-difference"), "block,heads", positions="0,last")
    save_patching(saved, tmp_path / "sweep.json")
    loaded = load_patching(tmp_path / "sweep.json")
    assert (loaded.axes, loaded.labels, loaded.mode) == (saved.axes, saved.labels, saved.mode)
    for site in saved.sites:
        assert torch.equal(loaded.values[site], saved.values[site])
    assert torch.equal(loaded.base, saved.base)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["axes"]["k"] == ["layer", "position", "kv_head", "prompt"]


def damage_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damage_tensors(path, **changes):
    tensors = path.with_suffix(".safetensors")
    save_file({**load_file(tensors), **changes}, tensors)


DAMAGES = {
    "another format": (lambda path: damage_json(path, format="2"), "its format is '2'"),
    "another mode": (lambda path: damage_json(path, mode="both"), "it.mode is 'both'"),
    "no axes": (lambda path: damage_json(path, axes=3), "is not a result of patching"),
    "labels missing": (lambda path: damage_json(path, labels={}), "KeyError"),
    "too few labels": (
        lambda path: damage_json(path, labels={"layer": ["0"], "position": ["0"]}),
        r"attn_out has shape \(1, 2, 2\) where its axes ask for \(1, 1, 2\)",
    ),
    "another length": (lambda path: damage_tensors(path, source=torch.ones(3)), "source has shape"),
    "no JSON": (lambda path: path.write_text("{"), "is not a result of patching"),
    "no tensors": (lambda path: path.with_suffix(".safetensors").unlink(), "cannot read|damaged"),
    "half the tensors": (
        lambda path: path.with_suffix(".safetensors").write_bytes(b"\0" * 9),
        "is not a result of patching",
    ),
    "no file": (lambda path: path.unlink(), "cannot read the result"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(damage, tmp_path):
    path = tmp_path / "sweep.json"
    save_patching(result_of([[0, 2], [4, 6]]), path)
    harm, said = DAMAGES[damage]
    harm(path)
    with pytest.raises(CircuitfindError, match=said):
        load_patching(path)


def test_a_site_that_was_not_swept_is_refused():
    with pytest.raises(CircuitfindError, match="no site 'head'; it has attn_out"):
        result_of([[0, 2]]).effect("head")


def test_every_patch_is_a_row_of_a_frame():
    result = result_of([[0, 2], [4, 6]])
    frame = result.to_frame()
    assert list(frame) == [
        "site", "layer", "position", "value", "effect", "standard_error"
    ]  # fmt: skip
    assert frame["value"].tolist() == [1, 5]
    assert frame["effect"].tolist() == [0, 1]
    assert frame.attrs["metric"] == "logit-difference"
    written = patch_report(result).csv().splitlines()
    assert written == [",".join(frame), "attn_out,0,0,1.0,0.0,0.0", "attn_out,0,1,5.0,1.0,0.0"]


def test_the_top_layers_of_the_stream_are_those_that_change_it():
    # The information enters in layer 1 and stays; the stream has an effect from layer 2 on.
    values = torch.tensor([0.0, 0, 4, 4, 4]).double()[:, None, None].expand(5, 1, 2)
    ends = torch.zeros(2).double(), torch.full((2,), 4.0).double()
    labels = {"layer": tuple("01234"), "position": ("end",)}
    for site, layer in (("resid_pre", "1"), ("resid_post", "2")):
        result = PatchResult(
            {site: values}, {site: ("layer", "position")}, labels, *ends, "denoising", "m", "u"
        )
        assert patch_report(result).sites[0].layers == (layer,)


@pytest.mark.parametrize("sure", [True, False])
def test_a_gap_within_its_noise_is_warned_of(sure):
    base = torch.arange(10).double()
    source = base + 0.03 + (0 if sure else torch.tensor([2.0, -2.0] * 5).double())
    result = PatchResult(
        {"head": base[None] + 1},
        {"head": ("head",)},
        {"head": ("0",)},
        base,
        source,
        "denoising",
        "logit-difference",
        "logits",
    )
    report = patch_report(result)
    shown = [report.markdown(), *report.as_json()["warnings"]]
    assert all(("may be chance" in text) != sure for text in shown)
    assert len(shown) == (1 if sure else 2)


def test_the_noise_of_an_interchange_is_that_of_pairs():
    # Both ways of a pair agree, so that they are one observation and not two.
    values, base = torch.tensor([1.0, 5, 1, 5]).double(), torch.zeros(4).double()
    result = PatchResult(
        {"head": values[None]}, {"head": ("head",)}, {"head": ("0",)},
        base, base + 4, "interchange", "m", "u",
    )  # fmt: skip
    (row,) = result.rows()
    assert row.effect == 0.75
    assert math.isclose(row.error, math.sqrt(8) / math.sqrt(2) / 4)
