"""Runs of methods that decide at their end go on from their last checkpoint."""

import pytest

from circuitfind.errors import RunDirectoryError

STATE = "state.safetensors"
METHODS = {
    "eap-ig": {"n_edges": 9, "steps": 4, "batch": 1},
    "information-flow": {"n_edges": 9, "batch": 1},
    "edge-pruning": {"n_edges": 9, "steps": 40},
    "subnetwork-probing": {"n_edges": 9, "steps": 40},
    "ugs": {"n_edges": 9, "steps": 40},
    "mattr": {"n_edges": 9, "steps": 40},
}


@pytest.fixture(autouse=True)
def every_state_is_written(monkeypatch):
    monkeypatch.setattr("circuitfind.directories.checkpoints.SECONDS_BETWEEN", 0.0)


def settings_of(method):
    return {"method": method, "options": METHODS[method]}


@pytest.mark.parametrize(
    ("method", "places"), [*((method, None) for method in METHODS), ("edge-pruning", "each")]
)
def test_an_interrupted_run_goes_on_from_its_last_checkpoint_to_the_same_circuit(
    method, places, discover, tmp_path
):
    whole, settings = [], {**settings_of(method), "places": places}
    expected = discover(tmp_path / "whole", on_progress=whole.append, **settings)

    def interrupt_at_the_third_step(progress):
        if progress.checkpoint.done >= 3 * whole[0].checkpoint.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover(tmp_path / "cut", on_progress=interrupt_at_the_third_step, **settings)
    assert (tmp_path / "cut" / STATE).is_file()
    rest = []
    found = discover(tmp_path / "cut", on_progress=rest.append, **settings)
    assert found.circuit.to_json() == expected.circuit.to_json()
    assert rest[-1].decisions == whole[-1].decisions
    assert 0 < len(rest) < len(whole)
    for run in ("whole", "cut"):
        assert not (tmp_path / run / STATE).exists()


def test_a_damaged_state_is_reported_with_what_to_do(discover, tmp_path):
    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover(tmp_path / "run", on_progress=interrupt, **settings_of("eap-ig"))
    (tmp_path / "run" / STATE).write_bytes(b"no tensors")
    with pytest.raises(RunDirectoryError, match=r"state\.safetensors is damaged .* delete it"):
        discover(tmp_path / "run", **settings_of("eap-ig"))
    (tmp_path / "run" / STATE).unlink()
    assert discover(tmp_path / "run", **settings_of("eap-ig")).card.n_edges <= 9
