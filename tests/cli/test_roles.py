"""The command `roles`: it names heads, keeps the names, and drawings show them."""

import json
from html import unescape

import pytest


@pytest.fixture
def run(cli):
    words = ["discover", "induction-pair", "--prompts", 16, "--threshold", 0.001, "--out", "run"]
    assert cli(*words).code == 0
    return "run"


def test_roles_are_named_kept_and_drawn(cli, run, tmp_path):
    answer = cli("roles", run)
    assert answer.code == 0, answer.err
    assert "a0.h0      previous-token  1.000" in answer.out
    assert answer.err == "roles of heads: about 12 passes of 16 prompts\n"
    assert "previous-token" in unescape((tmp_path / "run" / "roles.svg").read_text())
    again = cli("roles", run, "--json")
    assert "it is read, not measured again" in again.err
    assert [row["role"] for row in again.json] == ["previous-token", "induction"]
    assert cli("draw", run).code == 0
    assert "induction" in (tmp_path / "run" / "diagram.svg").read_text()


def test_a_file_of_roles_that_does_not_fit_is_refused(cli, run, complaint, tmp_path):
    assert cli("roles", run).code == 0
    file = tmp_path / "run" / "roles.json"
    content = json.loads(file.read_text())
    for change, said in (
        ({"prompts_fingerprint": "0"}, "the prompts of its circuit changed since"),
        ({"format": "1"}, "its format is '1'"),
        ({"roles": [{"component": "a7.h0", "role": "mover", "number": 1, "where": ""}]}, "a7.h0"),
        ({"roles": [{"component": "a0.h0"}]}, "lacks the field"),
    ):
        file.write_text(json.dumps(content | change))
        complaint(cli("roles", run), said)
        complaint(cli("draw", run), said)


def test_a_circuit_of_an_unknown_or_changed_model_has_no_roles(cli, run, complaint, tmp_path):
    content = json.loads((tmp_path / "run" / "circuit.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps(content | {"origin": {}}))
    complaint(cli("roles", "mine.json"), "does not say of which model and task it is")
    origin = content["origin"] | {"model_fingerprint": "0"}
    (tmp_path / "other.json").write_text(json.dumps(content | {"origin": origin}))
    complaint(cli("roles", "other.json"), "the model of the circuit in other.json changed since")
    (tmp_path / "later.json").write_text(
        json.dumps(content | {"origin": content["origin"] | {"seed": 5}})
    )
    complaint(cli("roles", "later.json"), "the prompts of the circuit in later.json changed since")
