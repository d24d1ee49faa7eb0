"""What the documentation shows is so: its code runs, its commands exist, its links lead somewhere.

Python blocks of a page run in order, in one namespace and one empty directory, and so do the
commands below a line `<!-- run -->`; where a block shows their output, it must be that output, with
`...` for any part of it. All other commands must at least be understood by the command line.
"""

import ast
import doctest
import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

import circuitfind
from circuitfind.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"
BLOCK = re.compile(r"^(<!-- run -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^(?:\$ )?circuitfind (.*)$", re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHORTEST_FRAGMENT = 4


class Block(NamedTuple):
    line: int
    runs: bool
    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start(3)), bool(found[1]), found[2], found[3])
        for found in BLOCK.finditer(text)
    ]


def name_of(page: Path) -> str:
    return page.name


EXECUTABLE = [
    page for page in PAGES if any(b.runs or b.language == "python" for b in blocks_of(page))
]


@pytest.mark.parametrize("page", EXECUTABLE, ids=name_of)
def test_the_code_on_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    namespace = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.language == "python":
            # Empty lines in front, so that a traceback gives the line of the page.
            source = "\n" * block.line + block.text
            exec(compile(source, page, "exec"), namespace)
        elif block.runs:
            run_commands(block.text)


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_command_is_one(page):
    for block in blocks_of(page):
        if block.language in ("", "sh", "console"):
            for command in COMMAND.findall(block.text):
                parse(shlex.split(command, comments=True))


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_link_leads_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name} links to {link}"
            assert not anchor or anchor in anchors_of(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_name_of_the_package_is_public(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\bcf\.([a-zA-Z]\w*)", text)) <= set(circuitfind.__all__)


def test_every_name_of_transformer_lens_is_one():
    text = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
    names = re.findall(r"`(transformer_lens(?:\.\w+)+)`", text)
    assert len(names) > 5
    for name in names:
        home, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(home), last), name


def test_every_message_in_troubleshooting_is_in_the_code():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([^`]+)` \|", text, re.M)
    assert len(shown) > 20
    known = messages()
    missing = [message for message in shown if not any(fits(message, text) for text in known)]
    assert not missing


def test_every_message_of_patching_is_in_troubleshooting():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([^`]+)` \|", text, re.M)
    package = Path(circuitfind.__file__).parent
    raised = [
        message
        for pattern in ("patching/*.py", "verbs/patch*.py", "directories/patch*.py")
        for path in package.glob(pattern)
        for message in raised_in(path)
    ]
    assert len(raised) > 25
    missing = [said for said in raised if not any(fits(message, said) for message in shown)]
    assert not missing


def run_commands(text: str) -> None:
    """Run each command and hold its output to what follows it."""
    for entry in re.split(r"^(?=(?:\$ )?circuitfind )", text, flags=re.M):
        first, _, expected = entry.partition("\n")
        if command := COMMAND.match(first):
            run = CliRunner().invoke(app, shlex.split(command[1], comments=True))
            got = f"{run.stdout}circuitfind: {run.exception}\n" if run.exception else run.stdout
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = doctest.OutputChecker().check_output(expected, got, flags)
            assert same if expected else run.exit_code == 0, f"{first}\n{got}"


def parse(words: list[str]) -> None:
    """Let the command line read a command without running it."""
    group = typer.main.get_command(app)
    context = group.make_context("circuitfind", words[:1])
    name, command, _ = group.resolve_command(context, words)
    command.make_context(name, words[1:], parent=context)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def messages() -> list[str]:
    """Return every text in the package, with a NUL where a value is filled in."""
    package = Path(circuitfind.__file__).parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")]
    return [text for tree in trees for text in texts_in(tree)]


def raised_in(path: Path) -> list[str]:
    """Return what the errors say that a file raises for users."""
    return [
        texts_in(node.exc)[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and ast.unparse(node.exc.func) not in ("ValueError", "AttributeError")
    ]


def texts_in(tree: ast.AST) -> list[str]:
    return [
        "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
        if isinstance(node, ast.JoinedStr)
        else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def fits(shown: str, text: str) -> bool:
    """Return whether a message is this text: `...` stands for values and for what is left out.

    A word of the message may be a value too, as in `no metric named`.
    """
    fragments = [part.strip() for part in shown.split("...")]
    long = [re.escape(part) for part in fragments if len(part) >= SHORTEST_FRAGMENT]
    start = text.partition(";")[0].strip("\0 ").split("\0")
    return bool(long) and (
        re.search(".*".join(long), text, re.S) is not None
        or (
            len(start) > 1
            and re.fullmatch(r"[\w-]+".join(map(re.escape, start)), shown) is not None
        )
    )
