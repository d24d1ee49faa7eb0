"""The command `certify`: what it prints, and how it ends."""


def test_a_found_circuit_is_certified_and_a_wrong_one_ends_with_1(cli, tmp_path):
    words = ["discover", "and-gate", "--prompts", 8]
    assert cli(*words, "--threshold", 0.001, "--out", "run").code == 0
    answer = cli("certify", "run")
    assert answer.code == 0, answer.err
    assert "equal to the model on all 4 inputs (16 pairs of inputs, resample)" in answer.out
    assert "level of minimality reached: least" in answer.out
    assert (tmp_path / "run" / "certificate.json").is_file()
    late = cli("certify", "run", "--budget", "0s")
    assert late.code == 124 and "circuits of the level edge are done; nothing was" in late.err
    # So large a threshold leaves nothing.
    assert cli(*words, "--threshold", 1e9, "--out", "empty").code == 0
    wrong = cli("certify", "empty", "--json")
    assert wrong.code == 1
    assert wrong.json["equal"] is False and wrong.json["counterexample"]["prompt"]
