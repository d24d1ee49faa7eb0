"""`circuitfind mib` prints its figures, writes a submission, and reads it again."""


def test_a_ranking_is_measured_and_its_submission_is_measured_again(cli, tmp_path):
    words = ["ioi", "--model", "ioi-small", "--prompts", 3]
    answer = cli("mib", *words, "--method", "eap", "--seed", 5)
    assert answer.code == 0
    assert "CPR, ranked by value" in answer.out and "100.0%" in answer.out
    place = tmp_path / "runs" / "mib-ioi-ioi-small-eap-prompts-3-seed-5"
    assert (place / "mib.svg").is_file()
    folder = place / "submission" / "ioi_ioi-small"
    assert answer.out.endswith(f"{folder.relative_to(tmp_path)}\n")
    again = cli("mib", *words, "--scores", folder, "--seed", 1_000_008, "--json")
    first = cli("mib", *words, "--method", "eap", "--seed", 5, "--json")
    assert again.code == first.code == 0
    assert again.json["signed"] == first.json["signed"]
    assert again.json["cpr"] == first.json["signed"]["cpr"]


def test_what_cannot_be_measured_is_one_line(cli, tmp_path):
    words = ["ioi", "--model", "ioi-small", "--prompts", 3]
    for more, said in (
        (["--method", "acdc"], "decides edge by edge and ranks none"),
        (["--level", "heads"], "nothing is ranked by 'heads'; choose edges or components"),
        (["--scores", tmp_path], "holds no scores"),
        (["--train", "nothing"], "nothing"),
        (["--option", "steps=0", "--method", "eap-ig"], "steps must be a whole number"),
        (["--steps", "0"], "steps must be a whole number"),
        (["--walk", "greedy"], "walk chooses a circuit, and here ten sizes of a ranking"),
    ):
        answer = cli("mib", *words, *more)
        assert (answer.code, answer.out) == (2, "")
        assert said in answer.err and answer.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    answer = cli("mib", "and-gate", "--model", "and-gate", "--prompts", 3, "--method", "exact")
    assert answer.code == 2 and "needs a right answer" in answer.err
