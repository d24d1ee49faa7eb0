"""A model's name that nothing can have ends every command in one line, before any network."""

import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from circuitfind.models.zoo import zoo_path

NAMES = ["my model", "ioi-small/", "modèle", "x..y", "gpt2@main", "a\nb", "x" * 300, ""]
COMMANDS = {
    "discover": ["discover", "ioi", "--threshold", 1],
    "patch": ["patch", "ioi"],
    "path-patch": ["path-patch", "ioi"],
    "bench": ["bench", "ioi"],
    "tasks": ["tasks", "ioi"],
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_no_model_can_have(command, name, cli, complaint, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    answer = cli(*COMMANDS[command], f"--model={name}")
    complaint(answer, "no model is named|File name too long")
    assert len(answer.err) < 600
    assert not any(tmp_path.iterdir())


DAMAGE = {
    "weights of a wrapped model": (
        lambda folder: renamed(folder, "_orig_mod."),
        "weights whose names begin with '_orig_mod.', as those of a model inside a wrapper",
    ),
    "weights of a parallel model": (
        lambda folder: renamed(folder, "module."),
        "weights whose names begin with 'module.', as those of a model inside a wrapper",
    ),
    "no tokenizer": (
        lambda folder: [file.unlink() for file in folder.glob("tokenizer*")],
        "has no tokenizer files; add the tokenizer .*json\\)\n",
    ),
    "a tokenizer without a vocabulary": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "tokenizer.*[^:]\n",
    ),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "holds an adapter .LoRA., no whole model; merge it into its base model",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_directory_with_this_is_one_whole_sentence(case, cli, tmp_path):
    damage, said = DAMAGE[case]
    shutil.copytree(zoo_path("ioi-small"), tmp_path / "model")
    damage(tmp_path / "model")
    answer = cli("discover", "ioi", "--model", "model", "--threshold", 1, "--out", "run")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert re.search(said, answer.err), answer.err
    assert not (tmp_path / "run").exists()


def renamed(folder, prefix):
    weights = {f"{prefix}{name}": value for name, value in load_file(folder / FILE).items()}
    save_file(weights, folder / FILE, metadata={"format": "pt"})


FILE = "model.safetensors"
