"""SAELens files: written by SAELens itself (`tests/data/dictionaries/write_saelens.py`)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitfind.dictionaries.loading import load_dictionaries
from circuitfind.dictionaries.sites import site_of
from circuitfind.errors import DictionaryError

WRITTEN = Path(__file__).parents[1] / "data" / "dictionaries" / "saelens"
KINDS = sorted(item.name for item in WRITTEN.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_latents_and_output_are_those_that_saelens_computes(kind):
    (one,) = load_dictionaries(WRITTEN / kind)
    expected = load_file(WRITTEN / kind / "expected.safetensors")
    latents = one.encode(expected["x"])
    assert torch.equal(latents != 0, expected["latents"] != 0)
    torch.testing.assert_close(latents, expected["latents"], rtol=1e-5, atol=1e-5)
    output = one.reconstruct(expected["x"])
    torch.testing.assert_close(output, expected["output"], rtol=1e-5, atol=1e-5)


def test_the_site_is_that_of_the_hook_names():
    through = "blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out"
    for kind, names in {
        "standard": ("blocks.1.hook_mlp_out",),
        "standard_before_6": ("blocks.1.hook_mlp_out",),
        "heads": ("blocks.0.attn.hook_z",),
        "jumprelu": ("blocks.3.hook_resid_post",),
        "skip_transcoder": through,
    }.items():
        (one,) = load_dictionaries(WRITTEN / kind)
        assert one.site == site_of(*names)
        assert one.trained_on == "tiny"


def test_a_directory_of_directories_gives_a_dictionary_for_each_layer(tmp_path):
    for kind in ("jumprelu", "heads", "standard", "transcoder"):
        shutil.copytree(WRITTEN / kind, tmp_path / kind)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "cfg.json").write_text("{}")
    assert [one.site.layer for one in load_dictionaries(tmp_path)] == [0, 1, 2, 3]
    shutil.copytree(WRITTEN / "gated", tmp_path / "again")
    with pytest.raises(DictionaryError, match=r"two dictionaries of blocks.1.hook_mlp_out"):
        load_dictionaries(tmp_path)


CONFIGS = {
    "d_sae": (17, r"\[d_sae, d_out\] = \[17, 6\]"),
    "d_in": ("6", "cfg.json.d_in is '6', not of type int"),
    "architecture": ("temporal", "its architecture is 'temporal'; standard, transcoder"),
    "activation_fn": ("tanh-relu", "its activation function is 'tanh-relu'"),
    "normalize_activations": ("expected_average_only_in", "fold that in with SAELens"),
    "hook_name": ("hook_embed", "must be about blocks.LAYER.HOOK"),
    "hook_head_index": (3, "it is about head 3 alone"),
    "metadata": ([], "cfg.json.metadata is not an object"),
}


@pytest.mark.parametrize("field", CONFIGS)
def test_a_configuration_that_cannot_be_used_is_refused_by_its_field(field, tmp_path):
    value, complaint = CONFIGS[field]
    folder = tmp_path / "one"
    shutil.copytree(WRITTEN / "standard", folder)
    content = json.loads((folder / "cfg.json").read_text())
    content[field] = value
    (folder / "cfg.json").write_text(json.dumps(content))
    refused(folder, complaint)


@pytest.mark.parametrize("value", ["layer_norm", "constant_norm_rescale", "covariance_whitening"])
def test_inputs_that_are_normalised_are_refused(value, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(WRITTEN / "standard", folder)
    content = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**content, "normalize_activations": value}))
    refused(folder, f"it normalises its inputs .'{value}'., so its latents are not linear")


WEIGHTS = {
    "missing": (lambda w: w.pop("b_enc"), "the tensor b_enc is missing"),
    "turned": (lambda w: w.update(W_enc=w["W_enc"].T.contiguous()), r"W_enc has the shape \[16"),
    "one axis": (lambda w: w.update(W_enc=w["W_enc"].flatten()), r"W_enc has the shape \[96\]"),
    "whole": (lambda w: w.update(b_enc=w["b_enc"].long()), "b_enc holds torch.int64"),
    "nan": (lambda w: w["W_dec"].__setitem__((0, 0), torch.nan), "W_dec holds numbers that"),
    "more": (lambda w: w.update(W_skip=torch.ones(6, 6)), "W_skip, which does not belong"),
    "scaled": (lambda w: w.update(scaling_factor=torch.ones(16) * 2), "by scaling_factor after"),
}  # fmt: skip


@pytest.mark.parametrize("damage", WEIGHTS)
def test_weights_that_are_not_those_of_the_configuration_are_refused_by_name(damage, tmp_path):
    change, complaint = WEIGHTS[damage]
    folder = tmp_path / "one"
    shutil.copytree(WRITTEN / "standard", folder)
    weights = load_file(folder / "sae_weights.safetensors")
    change(weights)
    save_file(weights, folder / "sae_weights.safetensors")
    refused(folder, complaint)


def test_half_precision_is_read_and_a_factor_of_1_is_left_out(tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(WRITTEN / "standard", folder)
    weights = load_file(folder / "sae_weights.safetensors")
    halved = {name: weight.bfloat16() for name, weight in weights.items()}
    save_file({**halved, "scaling_factor": torch.ones(16)}, folder / "sae_weights.safetensors")
    (one,) = load_dictionaries(folder)
    assert one.encoder.dtype == torch.float32
    torch.testing.assert_close(one.encoder, halved["W_enc"].float().T)


def test_files_that_are_missing_or_cut_short_are_refused(tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(WRITTEN / "standard", folder)
    weights = folder / "sae_weights.safetensors"
    whole = weights.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:length])
        refused(folder, "cannot be read as a saelens dictionary")
    weights.write_bytes(whole)
    for text in ("", "[]", "{", '{"d_in": 6}', '{"d_in": NaN}', "[" * 100_000):
        (folder / "cfg.json").write_text(text)
        refused(folder, "cfg.json")
    (folder / "cfg.json").unlink()
    refused(folder, r"No such file or directory \('cfg.json'\)")


def test_what_holds_no_dictionary_is_refused_with_what_would(tmp_path):
    refused(tmp_path, "holds no dictionary; a directory holds one if it has the files of SAELens")
    refused(tmp_path / "nothing", "No such file or directory; give a directory")
    (tmp_path / "ae.pt").write_bytes(b"\x80\x04.")
    refused(tmp_path, "'ae.pt' is a pickle, which can run code when it is read")
    refused(tmp_path / "ae.pt", "Not a directory; give a directory")


def refused(folder, complaint):
    with pytest.raises(DictionaryError, match=complaint) as caught:
        load_dictionaries(folder)
    assert "\n" not in str(caught.value)
