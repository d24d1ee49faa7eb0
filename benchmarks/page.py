"""Put measured text into a page of docs, between `<!-- NAME -->` and `<!-- /NAME -->`."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def write_block(name: str, text: str, page: str = "performance.md") -> None:
    """Replace a block of a page."""
    path = DOCS / page
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    new, found = pattern.subn(lambda block: f"{block[1]}{text}\n{block[2]}", path.read_text())
    if not found:
        raise SystemExit(f"{path} has no block {name!r}")
    path.write_text(new)
