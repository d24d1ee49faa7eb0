"""Take the pictures of the report that the docs show.

    python docs/screenshots.py [--browser PROGRAM]

Needs the development extra and a Chromium; writes docs/images/report.png, report-phone.png and
report-places.png.
"""

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from circuitfind.directories.config import RunConfig
from circuitfind.verbs.discover import run_discovery
from circuitfind.verbs.report import write_report

IMAGES = Path(__file__).parent / "images"
HEAD = "a2.h2"
PLACES = ("S2", "end")


def main() -> None:
    """Find a circuit, write its report, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default=shutil.which("chromium"), help="a Chromium program")
    program = parser.parse_args().browser
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        config = RunConfig("ioi", "ioi-small", "acdc", {"threshold": 0.02})
        file = write_report(run_discovery(Path(folder) / "run", config).path)
        config = replace(config, places="named")
        placed = write_report(run_discovery(Path(folder) / "placed", config).path)
        browser = running.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-background-networking"]
        )
        take(browser, file, IMAGES / "report.png", (1280, 800), "light")
        take(browser, file, IMAGES / "report-phone.png", (390, 844), "dark")
        picture = IMAGES / "report-places.png"
        take(browser, placed, picture, (1400, 850), "light", PLACES)
        browser.close()


def take(
    browser: Any,
    report: Path,
    picture: Path,
    size: tuple[int, int],
    theme: str,
    places: tuple[str, ...] = (),
) -> None:
    """Choose a head, or places and their edges, and take a picture of the window."""
    width, height = size
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    page.goto(report.as_uri())
    for place in places:
        page.locator(".places").get_by_role("button", name=place, exact=True).click()
    page.locator("#tab-edges" if places else f'.box[data-name="{HEAD}"]').click()
    back = page.get_by_role("button", name="graph")
    if back.is_visible():
        back.click()
    page.mouse.move(1, 1)
    page.screenshot(path=picture)
    page.close()


if __name__ == "__main__":
    main()
