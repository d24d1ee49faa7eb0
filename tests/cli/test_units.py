"""Neurons and latents from the command line: searches, files, and one line where it cannot be."""

import json

import pytest
import torch

import circuitfind as cf
from circuitfind.dictionaries.activations import relu
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.saelens import save_saelens
from circuitfind.dictionaries.sites import Site

SMALL = ("ioi", "--model", "ioi-small", "--prompts", "4", "--threshold", "0.5", "--shortlist", "6")


@pytest.mark.parametrize(
    ("option", "value", "kind"), [("neurons", "all", "neuron"), ("latents", "zoo", "latent")]
)
def test_a_search_writes_down_its_units_and_is_read_again(cli, tmp_path, option, value, kind):
    out = tmp_path / "run"
    done = cli("discover", *SMALL, f"--{option}", value, "--out", str(out))
    assert done.code == 0, done.err
    assert ("the dictionary of m1 explains" in done.err) == (kind == "latent")
    circuit = cf.load_circuit(out)
    assert sum(len(each.numbers) for each in circuit.graph.units) == 6
    assert {each.kind for each in circuit.graph.units} == {kind}
    assert json.loads((out / "config.json").read_text())[option] == value
    saved = circuit.to_json()
    again = cli("discover", *SMALL, f"--{option}", value, "--out", str(out))
    assert "is finished" in again.err and cf.load_circuit(out).to_json() == saved
    assert cli("evaluate", str(out), "--quick").code == 0


def test_an_interrupted_search_over_latents_is_taken_up(cli, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = (*SMALL, "--latents", "zoo", "--out")
    assert cli("discover", *options, str(whole)).code == 0
    assert cli("discover", *options, str(cut)).code == 0
    (cut / "circuit.json").unlink()
    lines = (cut / "decisions.jsonl").read_text().splitlines(keepends=True)
    (cut / "decisions.jsonl").write_text("".join(lines[: len(lines) // 2]))
    done = cli("discover", *options, str(cut))
    assert done.code == 0 and "resumes after" in done.err
    assert cf.load_circuit(cut).to_json() == cf.load_circuit(whole).to_json()


def test_circuits_with_other_units_are_compared_with_whole_mlps(cli, tmp_path):
    runs = []
    for layers in ("0", "1"):
        runs.append(str(tmp_path / layers))
        assert cli("discover", *SMALL, "--neurons", layers, "--out", runs[-1]).code == 0
    done = cli("compare", *runs, "--by-name", "--out", str(tmp_path / "compared"))
    assert done.code == 0, done.err
    assert "are compared with whole MLPs" in done.err
    drawn = tmp_path / "both.dot"
    assert cli("draw", runs[0], "--against", runs[1], "--out", str(drawn)).code == 0
    compared = (tmp_path / "compared" / "difference-0-1.dot").read_text()
    assert edges_of(drawn.read_text()) == edges_of(compared) != []
    assert "are compared with whole MLPs" in drawn.read_text()


def edges_of(dot: str) -> list[str]:
    return sorted(line for line in dot.splitlines() if "->" in line)


def autoencoder(folder, hook):
    """Write an autoencoder of an activation of layer 1, whose latents are random directions."""
    drawn = torch.Generator().manual_seed(0)
    rows = torch.randn(32, 64, generator=drawn) / 8
    made = Dictionary(
        "made", Site(1, hook, hook), rows, torch.zeros(32), relu(32), rows, torch.zeros(64)
    )
    save_saelens(made, folder)
    return str(folder)


@pytest.mark.parametrize(("hook", "block"), [("attn.hook_z", "a1"), ("hook_resid_mid", "mid1")])
def test_latents_of_attention_and_stream_are_searched_described_and_not_compared_with_heads(
    cli, tmp_path, hook, block
):
    made, run = autoencoder(tmp_path / "made", hook), str(tmp_path / "run")
    options = (*SMALL, "--threshold", "0.0001", "--latents", made)
    done = cli("discover", *options, "--out", run)
    assert done.code == 0 and "reconstructs blocks.1" in done.err
    circuit = cf.load_circuit(run)
    (units,) = circuit.graph.units
    assert (units.block, len(units.numbers)) == (block, 6)
    used = {edge.writer.name for edge in circuit.edges if edge.writer.kind == "latent"}
    described = json.loads(cli("units", run, "--json").out)
    assert {each["name"] for each in described} == used != set()
    plain = cf.heads_and_mlps(circuit.graph.shape)
    cf.Circuit.of_edges(plain, ["embed->a1.h0.v", "a1.h0->logits"]).save(tmp_path / "plain.json")
    done = cli("compare", run, str(tmp_path / "plain.json"), "--by-name")
    assert done.code == 2 and "other latents of attention" in done.err


def test_changed_dictionaries_are_another_search(cli, tmp_path):
    out = tmp_path / "run"
    assert cli("discover", *SMALL, "--latents", "zoo", "--out", str(out)).code == 0
    path = out / "circuit.json"
    content = json.loads(path.read_text())
    assert content["origin"]["dictionaries_fingerprint"]
    content["origin"]["dictionaries_fingerprint"] = "0" * 16
    path.write_text(json.dumps(content))
    done = cli("evaluate", str(out), "--quick")
    assert done.code == 2 and "the dictionaries of" in done.err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--neurons", "9"), "no layer 9"),
        (("--neurons", "all", "--latents", "zoo"), "and not both"),
        (("--latents", "zoo", "--model", "gpt-4l"), "there are no embedded transcoders"),
        (("--latents", "/no/such/directory"), "cannot read the dictionaries"),
        (("--neurons", "all", "--ranked-by", "eap"), "gradient of 'kl' is zero"),
    ],
)
def test_what_cannot_be_is_one_line(cli, tmp_path, options, complaint):
    out = tmp_path / "run"
    done = cli("discover", "ioi", "--prompts", "2", "--threshold", "1", *options, "--out", str(out))
    assert done.code == 2 and complaint in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not out.exists()
