"""The index page of a folder of runs filters and sorts."""

import re

from circuitfind.reports.index_page import index_html

ROWS = [
    {"picture": None, "link": None, "run": name, "task": task, "n_edges": n, "problem": ""}
    for name, task, n in (("one", "ioi", 9), ("two", "induction", 40), ("three", "ioi", None))
]


def test_the_index_filters_and_sorts(open_page, tmp_path):
    file = tmp_path / "index.html"
    file.write_text(index_html("Runs in here", ROWS))
    page = open_page(file, shows="#count")

    def shown():
        return [row.split("\t")[1].strip() for row in page.inner_text("tbody").splitlines() if row]

    assert page.inner_text("#count") == "3 of 3 runs"
    assert [head.inner_text() for head in page.query_selector_all("th")] == [
        "circuit", "run", "task", "edges",
    ]  # fmt: skip
    page.click("text=edges")
    assert shown() == ["one", "two", "three"]
    page.click("text=edges")
    assert shown() == ["two", "one", "three"]
    page.click("button:has-text('run')")
    assert shown() == ["one", "three", "two"]
    page.fill("#words", "IOI one")
    assert shown() == ["one"]
    assert re.match("1 of 3", page.inner_text("#count"))


def test_an_index_without_runs_says_so(open_page, tmp_path):
    file = tmp_path / "index.html"
    file.write_text(index_html("Runs in here", []))
    assert open_page(file, shows="#count").inner_text("#count") == "0 of 0 runs"
