"""The command `report`, and `discover --report`."""

from pathlib import Path


def test_report_writes_the_page_into_the_run_directory_and_names_it(cli, run):
    answer = cli("report", "run")
    assert (answer.code, answer.out, answer.err) == (0, "run/report.html\n", "")
    assert Path("run/report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_discover_writes_it_too_when_asked_also_for_a_finished_run(cli, run):
    assert not Path("run/report.html").exists()
    answer = cli(*run, "--report")
    assert answer.code == 0
    assert answer.out.endswith("run/diagram.svg\nrun/report.html\n")
    assert Path("run/report.html").exists()


def test_two_runs_go_into_one_file(cli, run):
    assert cli(*run[:-2], "--threshold", 0.1, "--out", "other").code == 0
    assert cli("report", "run", "--against", "other").out == "run/report-other.html\n"
    assert cli("report", "run", "--against", "other", "--out", "both.html").out == "both.html\n"


def test_what_is_no_run_is_refused_in_one_line(cli, run, complaint):
    complaint(cli("report", "."), "holds no run; give the directory")
    complaint(cli("report", "run", "--against", "nowhere"), "nowhere holds no run")
    complaint(cli("report", "run", "--out", "no/where.html"), "cannot write the report")
    Path("run/decisions.jsonl").unlink()
    complaint(cli("report", "run"), "cannot read run/decisions.jsonl")
