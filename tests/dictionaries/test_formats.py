"""Files of circuit-tracer, sparsify and Gemma Scope.

`tests/data/dictionaries/write_others.py` wrote them with circuit-tracer and sparsify themselves; by
hand are `config.yaml` and Gemma Scope's files, which those packages and SAELens then read.
"""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from circuitfind.dictionaries import gemma_scope
from circuitfind.dictionaries.base import DictionaryFormat
from circuitfind.dictionaries.loading import FORMATS, load_dictionaries
from circuitfind.dictionaries.sites import Site
from circuitfind.errors import DictionaryError

WRITTEN = Path(__file__).parents[1] / "data" / "dictionaries"
TRACED = WRITTEN / "circuit-tracer"
SPARSE = WRITTEN / "sparsify"
RELEASES = WRITTEN / "gemma-scope"
SECOND = WRITTEN / "gemma-scope-2"
DEEP = "layer_1/width_16/average_l0_5"

CASES = [
    *((TRACED / name, layer, TRACED / name / "expected" / f"{layer}.safetensors")
      for name, layer in (("relu", 0), ("relu", 1), ("skip", 0), ("jumprelu", 0), ("topk", 0))),
    *((SPARSE / name, 0, SPARSE / name / "expected.safetensors")
      for name in ("layers.0", "layers.1.mlp", "layers.2.mlp", "layers.3.self_attn")),
    *((RELEASES / f"gemma-scope-tiny-{kind}", 0,
       RELEASES / f"gemma-scope-tiny-{kind}" / DEEP / "expected.safetensors")
      for kind in ("transcoders", "res")),
    *((SECOND / name, 0, SECOND / name / "expected.safetensors")
      for name in ("transcoder", "transcoder_affine")),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "index", "computed"), CASES)
def test_latents_and_output_are_those_that_the_package_computes(folder, index, computed):
    one = load_dictionaries(folder)[index]
    expected = load_file(computed)
    latents = one.encode(expected["x"])
    assert torch.equal(latents != 0, expected["latents"] != 0)
    torch.testing.assert_close(latents, expected["latents"], rtol=1e-5, atol=1e-5)
    output = one.reconstruct(expected["x"])
    torch.testing.assert_close(output, expected["output"], rtol=1e-5, atol=1e-5)


def test_latents_of_circuit_tracer_may_be_negative():
    expected = load_file(TRACED / "jumprelu" / "expected" / "0.safetensors")
    assert bool((expected["latents"] < 0).any())


def test_sites_are_those_of_hooks_modules_and_releases():
    assert {one.site for one in load_dictionaries(TRACED / "relu")} == {
        Site(0, "mlp.hook_in", "hook_mlp_out"),
        Site(1, "mlp.hook_in", "hook_mlp_out"),
    }
    assert [one.site for one in load_dictionaries(SPARSE)] == [
        Site(0, "hook_resid_post", "hook_resid_post"),
        Site(1, "mlp.hook_in", "mlp.hook_out"),
        Site(2, "mlp.hook_in", "mlp.hook_out"),
        Site(3, "attn.hook_out", "attn.hook_out"),
    ]
    for kind, site in {
        "transcoders": Site(1, "ln2.hook_normalized", "hook_mlp_out"),
        "res": Site(1, "hook_resid_post", "hook_resid_post"),
    }.items():
        (one,) = load_dictionaries(RELEASES / f"gemma-scope-tiny-{kind}")
        assert one.site == site


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mine", "its directory is named 'mine', which does not say"),
        ("embed_tokens", "its directory is named 'embed_tokens'"),
        ("layers.0.self_attn", "it is a transcoder of 'layers.0.self_attn'"),
        ("layers.0", "it is a transcoder of 'layers.0'"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused(name, complaint, tmp_path):
    shutil.copytree(SPARSE / "layers.1.mlp", tmp_path / name)
    refused(tmp_path / name, complaint)


@pytest.mark.parametrize("name", ["h.1.mlp", "model.layers.1.mlp", "transformer.h.1.mlp"])
def test_modules_are_named_as_in_any_family(name, tmp_path):
    shutil.copytree(SPARSE / "layers.1.mlp", tmp_path / name)
    (one,) = load_dictionaries(tmp_path / name)
    assert one.site == Site(1, "mlp.hook_in", "mlp.hook_out")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"activation": "groupmax"}, "its activation is 'groupmax'; only topk"),
        ({"signed": True}, "its activation is 'signed topk'"),
        ({"k": 17}, "its k must be from 1 to 16, its latents, not 17"),
        ({"num_latents": 0}, r"\[n, d_in\] = \[192, 6\]"),
        ({"num_latents": -1}, "its n must be from 1 to"),
        ({"d_in": 10**12}, "its d_in must be from 1 to"),
        ({"skip_connection": True}, "the tensor W_skip is missing"),
    ],
)
def test_settings_of_sparsify_that_cannot_be_used_are_refused(change, complaint, tmp_path):
    folder = tmp_path / "layers.1.mlp"
    shutil.copytree(SPARSE / "layers.1.mlp", folder)
    content = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**content, **change}))
    refused(folder, complaint)


CONFIG = "model_kind: transcoder_set\nfeature_input_hook: {}\nfeature_output_hook: hook_mlp_out\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (CONFIG.format("mlp.hook_in").replace("transcoder_set", "cross_layer_transcoder"),
         "its model_kind is 'cross_layer_transcoder'"),
        (CONFIG.format("hook_embed"), "it is about 'hook_embed'"),
        (CONFIG.format("mlp.hook_in") + "activation: jumprelu\n", "function.threshold is missing"),
        (CONFIG.format("mlp.hook_in") + "activation: topk\n", "its k must be from 1 to 16"),
        (CONFIG.format("mlp.hook_in") + "activation: tanh\n", "config.yaml.activation is 'tanh'"),
        ("model_kind: transcoder_set\n", "config.yaml lacks the field 'feature_input_hook'"),
        ("- a\n- b\n", "config.yaml does not hold names and values"),
        ("a: [", "config.yaml cannot be read"),
        ("!!python/object/apply:os.getcwd []", "config.yaml cannot be read"),
        ("[" * 5000, "config.yaml cannot be read"),
        ("a: \x00", "config.yaml cannot be read"),
    ],
)  # fmt: skip
def test_a_config_of_circuit_tracer_that_cannot_be_used_is_refused(text, complaint, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(TRACED / "relu", folder)
    (folder / "config.yaml").write_text(text)
    refused(folder, complaint)


def test_layers_of_circuit_tracer_that_are_broken_are_refused_by_their_file(tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(TRACED / "relu", folder)
    weights = load_file(folder / "layer_1.safetensors")
    save_file({**weights, "W_enc": weights["W_enc"].T.contiguous()}, folder / "layer_1.safetensors")
    refused(folder, r"layer_1.safetensors: b_enc has the shape \[16\], not \[n\] = \[6\]")
    (folder / "layer_1.safetensors").write_bytes(b"\xff" * 100)
    refused(folder, "cannot be read as a circuit-tracer dictionary")
    (folder / "layer_1.safetensors").unlink()
    assert len(load_dictionaries(folder)) == 1
    (folder / "config.yaml").unlink()
    refused(folder, r"No such file or directory \('config.yaml'\)")


def test_gemma_scope_needs_the_names_of_its_directories(tmp_path):
    source = RELEASES / "gemma-scope-tiny-res" / DEEP / "params.npz"
    for names, complaint in {
        "here": "its directories do not say what it is about",
        "layer_3": "its directories do not say what it is about",
        "gemma-scope-2b-pt-res/average": "its directories do not say its layer",
    }.items():
        folder = tmp_path / names
        folder.mkdir(parents=True)
        shutil.copy(source, folder)
        refused(folder, complaint)
    folder = tmp_path / "gemma-scope-9b-pt-att-canonical" / "layer_31" / "width_16k" / "canonical"
    folder.mkdir(parents=True)
    shutil.copy(source, folder)
    assert load_dictionaries(folder)[0].site == Site(31, "attn.hook_z", "attn.hook_z")


def test_archives_that_are_broken_or_hold_objects_or_are_huge_are_refused(tmp_path):
    folder = tmp_path / "tiny-res" / "layer_0"
    folder.mkdir(parents=True)
    path = folder / "params.npz"
    whole = (RELEASES / "gemma-scope-tiny-res" / DEEP / "params.npz").read_bytes()
    for content in (b"", whole[:100], whole[:-30], whole[:500] + b"\xff" * 50 + whole[550:]):
        path.write_bytes(content)
        refused(folder, "params.npz")
    np.savez(path, W_enc=np.array([{"a": 1}], dtype=object))
    refused(folder, "'W_enc.npy' is not an array of numbers: Object arrays cannot be loaded")
    np.savez(path, W_enc=np.array(["a"]))
    refused(folder, "'W_enc.npy' is not an array of numbers")
    with zipfile.ZipFile(path, "w") as archive:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**7)}
        claimed = io.BytesIO()
        np.lib.format.write_array_header_1_0(claimed, header)
        archive.writestr("W_enc.npy", claimed.getvalue())
    refused(folder, "'W_enc.npy' is not an array of numbers")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", "W_enc")
    refused(folder, "'notes.txt' is not an array of numbers")


def test_an_archive_that_would_unpack_to_more_than_is_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gemma_scope, "MOST_TENSOR_BYTES", 2000)
    folder = tmp_path / "tiny-res" / "layer_0"
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "params.npz", W_enc=np.zeros(1000, dtype=np.float32))
    refused(folder, "it has 4,128 bytes and at most 2,000 are read")


@pytest.mark.parametrize(
    ("point", "site"),
    [
        ("model.layers.4.output", Site(4, "hook_resid_post", "hook_resid_post")),
        ("language_model.layers.4.self_attn.o_proj.input", Site(4, "attn.hook_z", "attn.hook_z")),
        ("model.layers.4.post_feedforward_layernorm.output", Site(4, *2 * ("hook_mlp_out",))),
    ],
)
def test_points_of_gemma_scope_2_are_those_of_modules(point, site, tmp_path):
    (one,) = load_dictionaries(SECOND / "transcoder")
    assert one.site == Site(1, "mlp.hook_in", "hook_mlp_out")
    folder = tmp_path / "one"
    shutil.copytree(SECOND / "transcoder", folder)
    config = {"architecture": "jump_relu", "hf_hook_point_in": point}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_dictionaries(folder)[0].site == site
    other = {"hf_hook_point_out": "model.layers.5.output"}
    (folder / "config.json").write_text(json.dumps({**config, **other}))
    refused(folder, "it reads layer 4 and writes to layer 5")
    (folder / "config.json").write_text(json.dumps({**config, "hf_hook_point_in": "embed.output"}))
    refused(folder, "it is about 'embed.output'; of a layer, output, self_attn.o_proj.input")
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "topk"}))
    refused(folder, "its architecture is 'topk', not jump_relu")


def test_a_program_adds_a_format_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(FORMATS, "_entries", dict(FORMATS._entries))
    (made,) = load_dictionaries(SPARSE / "layers.0")
    FORMATS.add(DictionaryFormat("mine", "mine (one.mine)", "*.mine", lambda folder: (made,)))
    (tmp_path / "one.mine").write_bytes(b"")
    assert load_dictionaries(tmp_path) == (made,)
    with pytest.raises(DictionaryError, match="there is another dictionary format named 'mine'"):
        FORMATS.add(DictionaryFormat("mine", "", "*.other", lambda folder: ()))


def refused(folder, complaint):
    with pytest.raises(DictionaryError, match=complaint) as caught:
        load_dictionaries(folder)
    assert "\n" not in str(caught.value)
