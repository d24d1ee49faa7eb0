"""The index of a folder of runs: one HTML page with a picture of each, to filter and to sort."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; }}
h1 {{ font-size: 1.3rem; }}
input {{ font: inherit; padding: .3rem .5rem; width: min(100%, 24rem); box-sizing: border-box; }}
.wide {{ overflow-x: auto; margin-top: 1rem; }}
table {{ border-collapse: collapse; }}
th, td {{ border-bottom: 1px solid var(--line); padding: .4rem .7rem; text-align: left; }}
th button {{ font: inherit; font-weight: 600; border: 0; background: none; padding: 0;
  cursor: pointer; color: inherit; white-space: nowrap; }}
th[aria-sort=ascending] button::after {{ content: " \\2191"; }}
th[aria-sort=descending] button::after {{ content: " \\2193"; }}
td {{ white-space: nowrap; }}
td:nth-child(2) {{ white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
img {{ display: block; width: 9rem; height: 6rem; object-fit: contain; background: #fff; }}
</style>
<h1>{title}</h1>
<label>Show runs with these words <input id="words" type="search"></label>
<p id="count" role="status"></p>
<div class="wide" tabindex="0" role="region" aria-label="Runs">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<script>
const body = document.querySelector("tbody"), rows = [...body.rows];
const value = (row, at) => row.cells[at].dataset.value ?? row.cells[at].textContent;
const order = (a, b) =>
  a === "" || b === "" ? (a === "") - (b === "")
  : isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
document.querySelectorAll("th").forEach((head, at) => {{
  head.firstChild?.addEventListener?.("click", () => {{
    const down = head.ariaSort === "ascending" ? -1 : 1;
    document.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
    rows.sort((left, right) => {{
      const [a, b] = [value(left, at), value(right, at)];
      return a === "" || b === "" ? order(a, b) : down * order(a, b);
    }});
    body.append(...rows);
  }});
}});
const words = document.querySelector("#words"), count = document.querySelector("#count");
const filter = () => {{
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const row of rows)
    row.hidden = !wanted.every((word) => row.textContent.toLowerCase().includes(word));
  count.textContent = `${{rows.filter((row) => !row.hidden).length}} of ${{rows.length}} runs`;
}};
words.addEventListener("input", filter);
filter();
</script>
</html>
"""


def index_html(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a page with a table of runs.

    Args:
        title: What stands above it.
        rows: Values by name, the same names in each; `picture` and `link` are paths of files
            relative to the page, or None.
    """
    every = [name for name in rows[0] if name not in ("picture", "link")] if rows else []
    names = [name for name in every if any(row[name] not in (None, "") for row in rows)]
    words = [name.replace("n_edges", "edges").replace("_", " ") for name in names]
    heads = "<th>circuit</th>" if rows else ""
    heads += "".join(f"<th><button>{_text(word)}</button></th>" for word in words)
    lines = "\n".join(_row(row, names) for row in rows)
    return _PAGE.format(title=_text(title), heads=heads, rows=lines)


def _row(row: Mapping[str, Any], names: Sequence[str]) -> str:
    picture = row["picture"]
    drawn = f'<img src="{_text(picture)}" loading="lazy" alt="">' if picture else ""
    first, *others = names
    label = _text(row[first])
    if row["link"]:
        label = f'<a href="{_text(row["link"])}">{label}</a>'
    cells = [f"<td>{drawn}</td>", f"<td>{label}</td>", *(_cell(row[name]) for name in others)]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number" data-value="{value}">{_text(_shown(value))}</td>'
    return f"<td>{_text('' if value is None else value)}</td>"


def _shown(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
