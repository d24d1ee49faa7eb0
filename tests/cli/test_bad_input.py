"""What the user got wrong is said in one line, with exit code 2, and nothing is written."""

import errno
import json
import os
import shutil

import pytest

from circuitfind.models.zoo import zoo_path

BEFORE_LOADING = {
    "an unknown task": (["discover", "oi"], "no task named 'oi'; the tasks are ioi, "),
    "an unknown method": (["discover", "ioi", "--method", "guess"], "the methods are acdc, exact"),
    "an unknown metric": (["discover", "ioi", "--metric", "joy"], "no metric named 'joy'; .* kl, "),
    "an unknown ablation": (
        ["discover", "ioi", "--ablation", "knife"],
        "the ablations are resample",
    ),
    "an unknown dtype": (["discover", "ioi", "--dtype", "int8"], "choose one of float32"),
    "an unknown device": (["discover", "ioi", "--device", "abacus"], "choose cpu or cuda"),
    "a threshold that is no number": (
        ["discover", "ioi", "--threshold", "nan"],
        "threshold must be a number from .*, not nan",
    ),
    "an infinite threshold": (
        ["discover", "ioi", "--threshold", "inf"],
        "threshold must be .*, not inf",
    ),
    "a threshold in words": (["discover", "ioi", "--threshold", "low"], "'low' is not a number"),
    "one bad threshold of several": (
        ["discover", "ioi", "--threshold", "1,nan"],
        "threshold must be .*, not nan",
    ),
    "no threshold after a comma": (
        ["discover", "ioi", "--threshold", "1,"],
        "'1,' is not a number",
    ),
    "a memory in words": (["discover", "ioi", "--memory", "little"], "give one like 500MB"),
    "no prompts": (
        ["discover", "ioi", "--prompts", "0"],
        "prompts must be a whole number from 1 to 1,000,000, not 0",
    ),
    "fewer than no prompts": (["discover", "ioi", "--prompts=-3"], "prompts must be .*, not -3"),
    "prompts in words": (["discover", "ioi", "--prompts", "many"], "'--prompts'.*discover --help"),
    "fewer than no edges": (
        ["discover", "ioi", "--method", "exact", "--edges=-1"],
        "edges must be .*, not -1",
    ),
    "exact without a number": (
        ["discover", "ioi", "--method", "exact"],
        "needs --edges, --threshold or --target-faithfulness",
    ),
    "edges with acdc": (["discover", "ioi", "--edges", "9"], "with acdc give --target-edges"),
    "a target with exact": (
        ["discover", "ioi", "--method", "exact", "--target-edges", "9"],
        "with exact give --edges",
    ),
    "a target of no edges": (
        ["discover", "ioi", "--target-edges", "0"],
        "target edges must be .*, not 0",
    ),
    "a faithfulness that is no number": (
        ["discover", "ioi", "--target-faithfulness", "nan"],
        "target faithfulness must be a number above 0 and at most 1, not nan",
    ),
    "two exclusive options": (
        ["discover", "ioi", "--threshold", "1", "--target-edges", "9"],
        "exclude one another; give one of them",
    ),
    "an option of another method": (
        ["discover", "ioi", "--method", "exact", "--edges", "9", "--group-qkv"],
        "'exact' has no option 'group_qkv'; its options are n_edges, threshold",
    ),
    "an option that does not exist": (
        ["discover", "ioi", "--speed", "9"],
        "No such option.*--help",
    ),
    "no task": (["discover"], "Missing argument.*discover --help"),
    "a command that does not exist": (["explain"], "No such command 'explain'.*--help"),
    "the card of an unknown model": (["models", "gpt9"], "no embedded model is named 'gpt9'"),
    "a model that is not there": (["inspect", "./gpt9"], r"no model at './gpt9'.*ioi-small"),
    "a compiled model that is not there": (["inspect", "p.json"], "no model at 'p.json'"),
    "a task file that is not there": (["discover", "mine.jsonl"], "cannot read the task file"),
    "a circuit that is not there": (
        ["draw", "nowhere"],
        "cannot read the circuit nowhere: No",
    ),
}


@pytest.mark.parametrize("case", BEFORE_LOADING)
def test_a_bad_command_line_is_one_line_and_writes_nothing(case, cli, tmp_path, complaint):
    words, said = BEFORE_LOADING[case]
    complaint(cli(*words), said)
    assert not any(tmp_path.iterdir())


def test_an_unknown_order_is_refused_by_name(cli, complaint, unchecked):
    complaint(cli("discover", "ioi", "--order", "up"), "no order named 'up'; .*forward-index")


def test_a_model_that_the_hub_does_not_know_is_refused(cli, complaint, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    answer = cli("discover", "ioi", "--model", "gpt9", "--threshold", "1")
    complaint(answer, "no model is named 'gpt9': it is not an embedded model")
    assert not any(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_refused(cli, complaint, tmp_path, program):
    answer = cli("discover", "program", "--model", program, "--threshold", 1, "--device", "cuda:99")
    complaint(answer, "the device 'cuda:99' cannot be used here .*choose another, such as cpu")
    assert not any(tmp_path.iterdir())


TASK_FILES = {
    "a misaligned pair": (
        {"clean": "a b c", "corrupted": "a b", "answer": "a"},
        "line 1 is misaligned: 4 clean tokens .* and 3 corrupted ones",
    ),
    "an answer of several tokens": (
        {"clean": "a b", "corrupted": "a c", "answer": "ab"},
        "the answer 'ab' is not a single token",
    ),
    "a corruption that changes nothing": (
        {"clean": "a b", "corrupted": "a b", "answer": "c"},
        "line 1: the corruption changes nothing",
    ),
    "a prompt longer than the model reads": (
        {"clean": "a b c a b c", "corrupted": "a b c a b b", "answer": "c"},
        "the longest prompt has 7 tokens and 'scramble' reads at most 5",
    ),
    "a symbol that the program does not know": (
        {"clean": "a z", "corrupted": "a b", "answer": "c"},
        "in the clean prompt, the program knows no symbol 'z'; it knows a, b, c",
    ),
    "a metric that asks for answers": (
        {"clean": "a b", "corrupted": "a c", "answer": "c"},
        "'logit-difference' needs a wrong answer",
    ),
}


@pytest.mark.parametrize("case", TASK_FILES)
def test_a_task_file_with_a_bad_pair_is_refused(case, cli, complaint, tmp_path, program):
    pair, said = TASK_FILES[case]
    (tmp_path / "mine.jsonl").write_text(json.dumps(pair) + "\n")
    words = ["--model", program, "--threshold", 1, "--metric", "logit-difference"]
    complaint(cli("discover", "mine.jsonl", *words), said)
    assert [item.name for item in tmp_path.iterdir()] == ["mine.jsonl"]


def test_a_task_of_words_is_refused_by_a_program(cli, complaint, tmp_path, program):
    answer = cli("discover", "ioi", "--model", program, "--threshold", 1)
    complaint(answer, "'ioi' is written in words and this model is a compiled program; .*'program'")
    assert not any(tmp_path.iterdir())


def test_the_task_of_programs_is_refused_by_a_language_model(cli, complaint, tmp_path):
    complaint(cli("discover", "program", "--threshold", 1), "'program' runs a compiled program and")
    complaint(cli("tasks", "program"), "'program' runs a compiled program and")
    assert not any(tmp_path.iterdir())


MISSING_FILES = {
    "model.safetensors": "has no weights in safetensors format",
    "config.json": "is not a model directory: it has no config.json",
    "tokenizer": "has no tokenizer files",
}


@pytest.mark.parametrize("missing", MISSING_FILES)
def test_a_model_directory_without_a_file_is_refused(missing, cli, complaint, tmp_path):
    shutil.copytree(zoo_path("ioi-small"), tmp_path / "model")
    for file in (tmp_path / "model").glob(f"{missing}*"):
        file.unlink()
    answer = cli("discover", "ioi", "--model", "model", "--threshold", 1, "--out", "run")
    complaint(answer, MISSING_FILES[missing])
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_settings_is_refused_and_stays(cli, complaint, tmp_path, run):
    before = content(tmp_path)
    for words, said in (
        (["--seed", 1], "seed is 0 there and 1 here"),
        (["--threshold", 0.5], "threshold is 0.01 there and 0.5 here"),
        (["--ablation", "zero"], "ablation is resample there and zero here"),
        (["--merge-qkv"], "split_qkv is True there and False here"),
        (["--keep-dead-ends"], "prune is True there and False here"),
        (["--dtype", "float32"], "dtype is not given there and float32 here"),
    ):
        complaint(cli(*run, *words), f"run holds another run \\(.*{said}\\); choose another --out")
    assert content(tmp_path) == before


@pytest.mark.parametrize("thresholds", ["1", "1,2"])
def test_a_directory_that_is_no_run_is_refused_and_stays(
    thresholds, cli, complaint, tmp_path, program
):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("the work of years")
    before = content(tmp_path)
    words = ["discover", "program", "--model", program, "--threshold", thresholds]
    complaint(cli(*words, "--out", "thesis"), "thesis (exists and|holds something else)")
    complaint(cli(*words, "--out", "thesis/chapter.tex"), "holds no run|Not a directory")
    assert content(tmp_path) == before


def test_a_place_that_cannot_hold_a_directory_is_refused(cli, complaint, tmp_path, program):
    (tmp_path / "file").write_text("")
    words = ["discover", "program", "--model", program, "--threshold", 1]
    complaint(cli(*words, "--out", "file/run"), "cannot use the run directory file/run: Not a dir")
    complaint(cli(*words, "--out", "/proc/run"), "cannot use the run directory /proc/run: ")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.ENOSPC, errno.EROFS], ids=os.strerror)
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_directory_that_cannot_be_written_is_refused_and_not_left_behind(
    call, reason, cli, complaint, tmp_path, program, monkeypatch
):
    possible = getattr(os, call)

    def refuse(file, *arguments, **options):
        if call == "open" and "run" not in str(file):
            return possible(file, *arguments, **options)
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        words = ["discover", "program", "--model", program, "--threshold", 1, "--out", "new/run"]
        answer = cli(*words)
    complaint(answer, f"run directory new/run: {os.strerror(reason)}; free some space, change its")
    assert not any(tmp_path.iterdir())


def test_a_circuit_of_another_model_is_not_drawn_against(cli, complaint, tmp_path, run, program):
    other = json.loads((tmp_path / "run" / "circuit.json").read_text())
    other["shape"]["n_layers"], other["edges"] = 3, []
    (tmp_path / "other.json").write_text(json.dumps(other))
    said = "other.json cannot be drawn against run: it belongs to .*: n_layers is 3 and 2 here"
    complaint(cli("draw", "run", "--against", "other.json"), said)
    assert not list(tmp_path.rglob("difference*"))


DAMAGE = {
    "an unknown edge": (lambda text: text.replace("->logits", "->nowhere"), "nowhere"),
    "cut short": (lambda text: text[: len(text) // 2], "is not valid JSON, or was cut short"),
    "no JSON": (lambda text: "Dear diary", "is not valid JSON, or was cut short"),
    "other JSON": (lambda text: "[1, 2]", "is not a circuit file"),
    "another format": (
        lambda text: text.replace("circuit 1", "circuit 9"),
        "circuitfind circuit 9",
    ),
    "empty": (lambda text: "", "is not valid JSON, or was cut short"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_circuit_is_not_drawn(case, cli, complaint, tmp_path, run):
    damage, said = DAMAGE[case]
    text = (tmp_path / "run" / "circuit.json").read_text()
    (tmp_path / "bad.json").write_text(damage(text))
    before = content(tmp_path)
    complaint(cli("draw", "bad.json"), f"bad.json.*{said}")
    complaint(cli("draw", "run", "--against", "bad.json"), f"bad.json.*{said}")
    assert content(tmp_path) == before


def test_a_drawing_of_unknown_kind_is_refused(cli, complaint, run):
    complaint(cli("draw", "run", "--out", "picture.doc"), r"cannot tell from 'picture.doc'.*\.svg")
    complaint(cli("draw", "run", "--out", "nowhere/a.svg"), "cannot write the diagram nowhere/a")


def test_an_unfinished_run_is_not_drawn(cli, complaint, tmp_path, run):
    (tmp_path / "run" / "circuit.json").unlink()
    complaint(cli("draw", "run"), "the run in run is not finished.*repeat its")


def test_a_result_that_cannot_be_written_is_one_line(start, program):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        running = start("tasks", stdout=full)
        answer = running.answer()
    assert answer.code == 2
    assert answer.err == "circuitfind: cannot write the result to stdout: No space left on device\n"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
