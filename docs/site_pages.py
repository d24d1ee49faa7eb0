"""What the site adds to the pages of this folder; `mkdocs.yml` names this file as a hook.

The commands, described by the command line itself; thumbnails above the gallery; and the files
beside this folder that pages link to. All else is as GitHub shows it.
"""

import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

from circuitfind.cli import app

ROOT = Path(__file__).parents[1]
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Files beside this folder that are pages of the site, in small letters."""
EXAMPLES = ("*.py", "*.toml", "*.jsonl")

_MARK = re.compile(r"^<!-- .* -->\n", re.M)
_PAGE = re.compile(r"\bdocs/([\w-]+\.md(?:#[\w-]+)?)")
_ENTRY = re.compile(r"^#+ (.+?)$|^!\[(.+)\]\((images/gallery/\S+)\)$", re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies beside this folder."""
    for name in BESIDE:
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name.lower(), content=text))
    for path in sorted(path for each in EXAMPLES for path in (ROOT / "examples").glob(each)):
        name = str(path.relative_to(ROOT))
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take out the marks of the scripts, mend links that leave this folder, add what is made."""
    text = _MARK.sub("", markdown).replace("](../examples/", "](examples/")
    for name in BESIDE:
        text = text.replace(f"](../{name}", f"]({name.lower()}")
    made = {"gallery.md": _with_thumbnails, "reference/commands.md": _with_commands}
    return made.get(page.file.src_uri, str)(text)


def _with_commands(text: str) -> str:
    """Add all commands, with what `--help` says about each."""
    group = typer.main.get_command(app)
    parent = group.make_context("circuitfind", ["--help"], resilient_parsing=True)
    parts = [text]
    for name, command in group.commands.items():
        context = parent.__class__(command, info_name=name, parent=parent)
        usage = " ".join(["circuitfind", name, *command.collect_usage_pieces(context)])
        parts += [f"## {name}", _linked(command.help), f"```\n{usage}\n```"]
        records = [param.get_help_record(context) for param in command.get_params(context)]
        rows = [_row(*record) for record in records if record and record[0] != "--help"]
        parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _row(flags: str, said: str) -> str:
    """Return a row of a table: the words of a flag apart, and what it does."""
    words = " ".join(word if word == "/" else f"`{word}`" for word in flags.split())
    return f"| {words} | {_linked(said)} |".replace("\n", " ")


def _linked(said: str) -> str:
    """Return a text of the command line in Markdown; pages that it names become links."""
    return _PAGE.sub(r"[\1](../\1)", said.replace("|", "\\|"))


def _with_thumbnails(text: str) -> str:
    """Put a thumbnail of every picture below the title, which leads to its entry."""
    slug, anchor, tiles = slugify(case="lower"), "", []
    for found in _ENTRY.finditer(text):
        if found[1]:
            anchor = slug(found[1], "-")
        else:
            caption = found[2].removeprefix("The circuit of ")
            tiles.append(f"[![]({found[3]}){{ loading=lazy }} {caption}](#{anchor})")
    title, _, rest = text.partition("\n")
    return "\n".join([title, '\n<div class="thumbnails" markdown>\n', *tiles, "\n</div>", rest])
