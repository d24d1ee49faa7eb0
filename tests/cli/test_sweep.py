"""`sweep` on the command line: what it prints, refuses, and leaves when it is stopped."""

import signal
import sys
import time

import pytest

from tests.sweeps.conftest import SMALL


@pytest.fixture
def file(program, monkeypatch):
    """A sweep file, whose workers are there at once."""
    monkeypatch.setattr("circuitfind.workers.processes.usual_start_method", lambda: "fork")
    path = program.with_name("small.toml")
    path.write_text(SMALL)
    return path


def test_the_result_is_a_table_and_everything_else_is_on_stderr(cli, file):
    answer = cli("sweep", file, "--workers", 2)
    assert answer.code == 0, answer.err
    rows, files = answer.out.splitlines()[:5], answer.out.splitlines()[5:]
    assert rows[0].split() == ["run", "n_edges", "faithfulness"]
    assert all(row.startswith("scramble-program-") for row in rows[1:])
    assert files[0] == "sweeps/small/table.csv"
    assert answer.err.count(": finished after ") == 4
    again = cli("sweep", file, "--json")
    assert (again.code, again.err) == (0, "")
    assert [row["run"] for row in again.json] == [row.split()[0] for row in rows[1:]]


def test_a_dry_run_lists_the_runs_and_writes_nothing(cli, file, tmp_path):
    answer = cli("sweep", file, "--dry-run")
    assert answer.out.count("scramble-program-") == 4
    assert not any(tmp_path.iterdir())


def test_runs_that_fail_are_named_in_one_line_after_the_table(cli, file):
    file.write_text(SMALL.replace('tasks = ["program"]', 'tasks = ["program", "ioi"]'))
    answer = cli("sweep", file, "--workers", 2)
    assert answer.code == 2
    assert answer.out.count("scramble-program-") == 4
    last = answer.err.splitlines()[-1]
    assert last.startswith("circuitfind: 4 of 8 runs failed, such as scramble-ioi-")
    assert "'ioi' is written in words" in last


BAD = {
    "no file": (["sweep", "no.toml"], "cannot read the sweep file no.toml: No such file"),
    "no workers": (
        ["sweep", "FILE", "--workers", "0"],
        "workers must be a whole number from 1 to .* not 0",
    ),
    "another directory": (["sweep", "FILE", "--out", "/dev/null/x"], "Not a directory"),
    "no cluster": (["sweep", "FILE", "--ray", "127.0.0.1:9"], "no Ray cluster at '127.0.0.1:9'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_command_line_is_one_line(case, cli, file, complaint):
    words, said = BAD[case]
    complaint(cli(*(str(file) if word == "FILE" else word for word in words)), said)


def test_ray_that_is_not_installed_is_said_in_one_line(cli, file, complaint, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    complaint(cli("sweep", file, "--ray", "auto"), r"pip install 'circuitfind\[ray\]'")


def test_ctrl_c_stops_the_workers_and_says_how_to_go_on(start, cli, file, tmp_path):
    searching = start("sweep", file, "--workers", 1, "--out", "out")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/runs/*/circuit.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    answer = searching.stop(signal.SIGINT)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.endswith("circuitfind: interrupted; repeat the command to resume in out\n")
    assert cli("sweep", file, "--out", "out").code == 0
