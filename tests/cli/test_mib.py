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


def test_what_is_given_in_vain_is_refused(cli, tmp_path):
    words = ["ioi", "--model", "ioi-small", "--prompts", 3]
    assert cli("mib", *words, "--method", "eap", "--out", tmp_path / "mib").code == 0
    scores = ["--scores", tmp_path / "mib" / "submission" / "ioi_ioi-small"]
    for more in (["--method", "exact"], ["--train", "ioi"], ["--train-prompts", 5]):
        answer = cli("mib", *words, *scores, *more)
        assert (answer.code, answer.out) == (2, "")
        assert "so no method computes any; leave out the method" in answer.err


def test_scores_of_a_run_of_another_model_are_refused(cli, tmp_path):
    run = tmp_path / "run"
    search = ["--method", "eap", "--edges", 5, "--metric", "logit-difference", "--out", run]
    assert cli("discover", "ioi", "--model", "ioi-small", "--prompts", 3, *search).code == 0
    for model in ("gpt-4l", "llama-4l"):
        answer = cli("mib", "ioi", "--model", model, "--prompts", 3, "--scores", run)
        assert answer.code == 2
        assert "it belongs to another model: d_model is 64 and 96 here" in answer.err


def test_a_measurement_that_fails_after_its_scores_can_be_repeated(cli, tmp_path):
    words = ["mib", "ioi", "--model", "ioi-small", "--prompts", 3]
    assert cli(*words, "--method", "eap", "--out", tmp_path / "mib").code == 0
    again = [*words, "--scores", tmp_path / "mib" / "submission" / "ioi_ioi-small"]
    answer = cli(*again, "--out", tmp_path / "again", "--memory", "1MB")
    assert answer.code == 2 and "1 MB are allowed" in answer.err
    assert cli(*again, "--out", tmp_path / "again").code == 0
