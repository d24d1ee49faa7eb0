"""The site is whole: it builds strictly, its links lead somewhere, and it needs no other host.

It is built once, as `make site` does it. What must be in it is taken from the package, the command
line and the folder of pages, not from the builder.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import circuitfind
from circuitfind.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
"""The tags that make a browser load something, and the attribute that says what."""


class Page(HTMLParser):
    """What a built page has: ids, links, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if loaded := given.get(LOADED.get(tag)):
            self.loads.append(loaded)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site and return its folder."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_of_the_folder_is_on_the_site_and_in_its_navigation(site, pages):
    linked = set(pages[site / "index.html"].links)
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html")
        assert name == Path("index.html") or str(name) in linked, f"add {page.name} to mkdocs.yml"
        assert site / name in pages


def test_every_link_of_the_site_leads_somewhere(site, pages):
    for page in pages.values():
        for link in page.links:
            path, _, anchor = link.partition("#")
            if "://" in link or path.startswith("/") or not link:
                continue
            target = (page.path.parent / path).resolve() if path else page.path
            assert target.exists(), f"{page.path.name} links to {link}"
            if anchor and target in pages:
                assert anchor in pages[target].ids, f"{page.path.name} links to {link}"


def test_nothing_is_loaded_from_another_host(site, pages):
    loads = [load for page in pages.values() for load in page.loads]
    sheets = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    loads += re.findall(r"(?:@import|url\()\s*[\"']?([^\"')]+)", sheets)
    assert len(loads) > 100
    assert not [load for load in loads if re.match(r"(https?:)?//", load)]


@pytest.mark.parametrize("name", circuitfind.__all__)
def test_every_public_name_is_in_the_reference_with_what_it_is(name, site, pages):
    (home,) = [page for page in pages.values() if f"circuitfind.{name}" in page.ids]
    assert home.path.parent == site / "reference"
    section = home.text.partition(f'id="circuitfind.{name}"')[2].partition("<h3")[0]
    value = getattr(circuitfind, name)
    if callable(value):
        said = value.__doc__.strip().splitlines()[0]
        assert re.sub(r"[`*\\]", "", said) in text_of(section)


def test_every_command_and_option_is_in_the_reference(site):
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h2 id="([\w-]+)">(.*?)(?=<h2|</article)', page, re.S))
    commands = re.findall(r"^  ([a-z][a-z-]+)  ", help_of(), re.M)
    assert list(sections) == commands and len(commands) > 20
    for command in commands:
        said = text_of(sections[command])
        for option in set(re.findall(r"--[a-z][\w-]+", help_of(command))) - {"--help"}:
            assert option in said, f"{command} {option}"


def test_every_picture_of_the_gallery_has_a_thumbnail_that_leads_to_it(site, pages):
    page = pages[site / "gallery.html"]
    grid, entries = page.text.partition('class="thumbnails"')[2].split("</div>", 1)
    thumbnails = re.findall(r'<a href="#([^"]+)"><img[^>]* src="([^"]+)"', grid)
    assert [picture for _, picture in thumbnails] == re.findall(r'<img[^>]* src="([^"]+)"', entries)
    for anchor, picture in thumbnails:
        section = entries.partition(f'id="{anchor}"')[2]
        assert picture in re.split(r"<h[23]", section)[0]


def test_search_knows_pages_commands_and_names(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = {entry["location"] for entry in index["docs"]}
    assert places > {"tutorial.html", "reference/commands.html#discover"}
    assert "reference/search.html#circuitfind.discover" in places


def test_the_site_is_light_and_dark_and_has_versions(site, pages):
    text = pages[site / "index.html"].text
    assert 'data-md-color-scheme="slate"' in text and 'data-md-color-scheme="default"' in text
    assert '"provider": "mike"' in text


def test_the_start_page_shows_the_demo_that_the_readme_shows():
    readme, start = (path.read_text("utf-8") for path in (ROOT / "README.md", DOCS / "index.md"))
    demo = re.search(r"<!-- demo -->.*?<!-- /demo -->", readme, re.S)[0]
    assert demo in start


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["authors"]
    assert cited["title"].startswith(f"{project['name']}: ")
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def help_of(*command: str) -> str:
    return CliRunner().invoke(app, [*command, "--help"]).stdout


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html))
