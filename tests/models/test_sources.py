"""Names of models are judged before anything is loaded, and every mistake is one line."""

import os

import pytest
import torch

from circuitfind.errors import ModelError
from circuitfind.models.loading import load_model, load_vocabulary
from circuitfind.models.zoo import zoo_path

IMPOSSIBLE = [
    "my model", "ioi-small/", "modèle", "a b/c", "-x", "x..y", "org/na me", "C:\\models\\gpt2",
    "gpt2@main", "gpt2 ", " gpt2", "a/b c", "x--y", "name.git", ".hidden", "a\nb", "a\x00b",
    "a\x1b[2Jb", "", "x" * 97, "x" * 100_000, "/".join(["x" * 200] * 100), "~", "a//b", "模型",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def refuse(*words, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("subprocess.Popen", refuse)


@pytest.mark.parametrize("load", [load_model, load_vocabulary])
@pytest.mark.parametrize("name", IMPOSSIBLE, ids=lambda name: ascii(name[:20]))
def test_a_name_that_no_model_can_have_is_one_short_line(name, load):
    with pytest.raises(ModelError, match="no model") as refusal:
        load(name)
    said = str(refusal.value)
    assert said.isprintable() and len(said) < 500


@pytest.mark.parametrize("name", ["ioi-small ", "ioi-small/", "./ioi-small", "IOI small"])
def test_a_name_that_is_nearly_an_embedded_one_is_answered_with_it(name):
    with pytest.raises(ModelError, match="did you mean 'ioi-small'"):
        load_model(name)


FILES = {
    "x.pt": "is a pickle, which can run code when it is read",
    "x.PTH": "is a pickle",
    "pytorch_model.bin": "is a pickle",
    "x.ckpt": "is a pickle",
    "x.safetensors": "holds weights alone; give the directory it is in",
    "x.gguf": "is not a whole GGUF file",
    "x.txt": "is not a model; give a directory written by save_pretrained",
    "x": "is not a model",
}


@pytest.mark.parametrize("load", [load_model, load_vocabulary])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_said_to_be_what_it_is(name, load, tmp_path):
    torch.save({}, tmp_path / name)
    for path in (f"./{name}", tmp_path / name):
        with pytest.raises(ModelError, match=f"{name}' {FILES[name]}"):
            load(path)


@pytest.mark.parametrize("name", ["pipe", "pipe.json"])
def test_a_pipe_is_not_read(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match=f"{name}' is not a model"):
        load_model(f"./{name}")


def test_a_directory_of_an_adapter_is_said_to_be_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="holds an adapter .LoRA.*; merge it into its base model"):
        load_model(tmp_path)


@pytest.mark.parametrize("call", ["stat", "listdir"])
def test_a_directory_that_cannot_be_read_is_one_line(call, monkeypatch):
    possible, forbidden = getattr(os, call), str(zoo_path("ioi-small"))

    def refuse(path=".", *arguments, **options):
        if str(path).startswith(forbidden):
            raise PermissionError(13, "Permission denied", path)
        return possible(path, *arguments, **options)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(ModelError, match="cannot read the model .*: Permission denied; change its"):
        load_model(forbidden)
