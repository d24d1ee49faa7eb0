"""Put measured text into docs/performance.md, between `<!-- NAME -->` and `<!-- /NAME -->`."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"


def write_block(name: str, text: str) -> None:
    """Replace a block of the page."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    page, found = pattern.subn(lambda block: f"{block[1]}{text}\n{block[2]}", PAGE.read_text())
    if not found:
        raise SystemExit(f"{PAGE} has no block {name!r}")
    PAGE.write_text(page)
