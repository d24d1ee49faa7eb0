"""A headless browser, where there is one, and reports to open in it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuitfind.directories.config import RunConfig
from circuitfind.directories.results import RunResult
from circuitfind.evaluation.assess import USUAL
from circuitfind.evaluation.assessment import Assessment
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.evaluate import evaluate_run
from circuitfind.verbs.report import write_report
from circuitfind.verbs.wish import Wish

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A sandbox of its own needs rights that a container does not give; and nothing may call home.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MODEL = "ioi-small"
N_PROMPTS = 8
SIZES = {"desktop": (1400, 900), "phone": (390, 844)}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the PATH")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        started.close()


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser) -> Iterator[Open]:
    """Open a file at some size; whatever it logs, throws or fetches fails the test."""
    contexts, said = [], []

    def opened(file: Path, size: str = "desktop", theme: str = "light", shows: str = ".box") -> Any:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            has_touch=size == "phone",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: said.append(request.url) if is_remote(request) else None)
        page.goto(file.as_uri())
        page.wait_for_selector(shows)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def is_remote(request: Any) -> bool:
    return not request.url.startswith(("file:", "data:"))


@pytest.fixture(scope="session")
def run(browser, tmp_path_factory) -> RunResult:
    config = RunConfig("ioi", MODEL, "acdc", {"threshold": 0.05}, n_prompts=N_PROMPTS)
    return run_discovery(tmp_path_factory.mktemp("browsed") / "run", config)


@pytest.fixture(scope="session")
def report(run) -> Path:
    return write_report(run.path)


@pytest.fixture(scope="session")
def evaluated(run, tmp_path_factory) -> tuple[Path, Assessment]:
    """The report of the same run after a short evaluation, and what that said."""
    path = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(run.path, path)
    few = replace(USUAL, n_random=2, n_knock_outs=0, n_greedy=0, n_sets=0)
    assessment = evaluate_run(path, Wish(few)).assessment
    return write_report(path), assessment
