"""Put data and the built page together in one HTML file that needs nothing else.

The data stands in a script block of its own as JSON in which `<`, `>`, `&` and line separators are
escaped, so that nothing in it can end the block or begin another element. The page sets text only,
never markup. A content security policy on top of that admits just this script and this style, by
their hashes, and no connection at all.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

VERSION = 1
"""Of the data; the page refuses any other."""

_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="circuitfind">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This report needs JavaScript, all of which is contained in the file.</noscript>
<div id="page"></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def page_html(title: str, data: Mapping[str, Any]) -> str:
    """Return the report as HTML.

    Args:
        title: What the browser's tab shows.
        data: What the page shows, as `web/src/data.ts` describes it.
    """
    script, style = _asset("page.js"), _asset("page.css")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=html.escape(policy),
        title=html.escape(title),
        style=style,
        data=script_safe_json({"version": VERSION, "title": title, **data}),
        script=script,
    )


def script_safe_json(value: Any) -> str:
    """Return JSON that can stand inside a script element whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
