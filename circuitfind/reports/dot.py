"""Write a picture as Graphviz DOT text, byte for byte the same for the same picture.

Pictures carry their own layout (`layout.py`, `routes.py`) and tell Graphviz, by `layout=nop2`, to
keep every position.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from itertools import zip_longest
from textwrap import wrap

import graphviz

from circuitfind.reports.layout import TOKEN_COLUMNS, TOKEN_LINES, Layout, compacted, place
from circuitfind.reports.picture import Box, BoxKind, Column, Entry, Line, Picture, Stroke
from circuitfind.reports.routes import Route, route
from circuitfind.reports.sizes import BOX_HEIGHT, UNIT_FONT, box_height, box_width, name_width

FONT = "Arial"
_AXIS_WIDTH = 45.0
CAPTION_COLUMNS = 66  # about as wide as the legend, which stretches under a wider caption
_QUIET = "#777777"
_BACKSLASH, _LOOKS_LIKE_IT = "\\", "\u2216"
_LONGEST_ROLE, _LONGEST_ENTRY, _LONGEST_CAPTION = 60, 100, 600  # characters that are shown

_SMALL = {"shape": "box", "fontsize": f"{UNIT_FONT:g}", "margin": "0.02,0.01"}
_BOX_STYLES: dict[BoxKind, dict[str, str]] = {
    "end": {
        "shape": "box",
        "style": "rounded,filled",
        "fillcolor": "#333333",
        "fontcolor": "white",
    },
    "head": {"shape": "box", "style": "rounded,filled", "fillcolor": "#ffffff"},
    "kv": {"shape": "box", "style": "rounded,filled", "fillcolor": "#eef3f7"},
    "mlp": {"shape": "box", "style": "filled", "fillcolor": "#f3e9c6"},
    "norm": {"shape": "box", "style": "filled", "fillcolor": "#eeeeee", "color": "#aaaaaa"},
    "unit": {**_SMALL, "style": "filled", "fillcolor": "#ffffff"},
    "input": {**_SMALL, "style": "rounded,filled", "fillcolor": "#eef3f7"},
    "rest": {**_SMALL, "style": "filled", "fillcolor": "#e3d6a8"},
    "error": {**_SMALL, "style": "filled,dashed", "fillcolor": "#ffffff"},
}
_FRAME = {"style": "filled", "fillcolor": "#f3e9c6", "color": "black", "label": ""}


def write_dot(picture: Picture) -> str:
    """Return the DOT text of a picture."""
    boxes = [_with_short_roles(box) for box in picture.boxes]
    picture = compacted(replace(picture, boxes=boxes))
    canvas = _placed(picture) if boxes else _empty(picture)
    return str(canvas.source)


def _with_short_roles(box: Box) -> Box:
    units = tuple(tuple(map(_with_short_roles, row)) for row in box.units)
    return replace(box, role=shortened(box.role, _LONGEST_ROLE), units=units)


def _canvas(picture: Picture, **attributes: str) -> graphviz.Digraph:
    label = _html(_title_block(picture))
    graph = {"bgcolor": "white", "pad": "0.1", "fontname": FONT, "label": label, "labelloc": "b"}
    return graphviz.Digraph(
        "circuit",
        graph_attr={**graph, "labeljust": "l", "outputorder": "edgesfirst", **attributes},
        node_attr={"fontname": FONT, "fontsize": "10", "margin": "0.05,0.02"},
        edge_attr={"arrowsize": "0.5"},
    )


def _empty(picture: Picture) -> graphviz.Digraph:
    canvas = _canvas(picture)
    canvas.node("no edges kept", shape="plaintext", fontsize="14")
    return canvas


def _placed(picture: Picture) -> graphviz.Digraph:
    canvas, layout = _canvas(picture, layout="nop2"), place(picture)
    routes = route(layout, picture.lines)
    boxes = [layout.centres[box.name][0] - box_width(box) / 2 for box in picture.boxes]
    starts = [*boxes, *(low for low, _ in layout.columns)]
    left = min([*starts, *(x for way in routes for x, _ in way.points)]) - _AXIS_WIDTH
    _add_columns(canvas, layout, picture.columns)
    for index, (label, row) in enumerate(zip(_axis_labels(picture), picture.rows, strict=True)):
        position = f"{left:.1f},{layout.centres[row[0].name][1]:.1f}"
        canvas.node(_axis_name(index), label=label, pos=position, **_AXIS_STYLE)
        for box in row:
            _add_box(canvas, layout, box)
    for line, way in zip(picture.lines, routes, strict=True):
        canvas.edge(_id(line.tail), _id(line.head), pos=_spline(way), **_line_attributes(line))
    return canvas


def _add_box(canvas: graphviz.Digraph, layout: Layout, box: Box) -> None:
    if not box.units:
        canvas.node(_id(box.name), pos=_position(layout, box), **_box_attributes(box))
        return
    (x, y), across, up = layout.centres[box.name], box_width(box) / 2, box_height(box) / 2
    frame = f"{x - across:.1f},{y - up:.1f},{x + across:.1f},{y + up:.1f}"
    attributes = {"bb": frame, "tooltip": _tooltip(box), **_FRAME}
    with canvas.subgraph(name=f"cluster_{_id(box.name)}", graph_attr=attributes) as inside:
        name = {**_box_attributes(replace(box, units=())), "shape": "plaintext", "style": ""}
        at = f"{x - across + name_width(box) / 2:.1f},{y:.1f}"
        inside.node(_id(box.name), pos=at, **name)
        for unit in box.inner:
            inside.node(_id(unit.name), pos=_position(layout, unit), **_box_attributes(unit))


_COLUMN_ROOM = 14.0
"""Above and below the boxes of a column, for its name."""

_TOKEN_LINE = 11.0


def _add_columns(canvas: graphviz.Digraph, layout: Layout, columns: Sequence[Column]) -> None:
    """Draw bands behind the boxes of columns, their names over and under them, and tokens."""
    n_lines = max((len(token_lines(column.tokens)) for column in columns), default=0)
    for number, column in enumerate(columns):
        _add_column(canvas, layout, number, column, n_lines)


def _add_column(
    canvas: graphviz.Digraph, layout: Layout, number: int, column: Column, n_lines: int
) -> None:
    low, high = layout.columns[number]
    boxes = [
        (layout.centres[box.name][1], box_height(box) / 2) for row in layout.rows for box in row
    ]
    top = max(y + half for y, half in boxes) + _COLUMN_ROOM
    bottom = min(y - half for y, half in boxes) - _COLUMN_ROOM
    lines = token_lines(column.tokens)
    floor = bottom - BOX_HEIGHT / 2 - _TOKEN_LINE * n_lines
    frame = f"{low - 4:.1f},{floor:.1f},{high + 4:.1f},{top + BOX_HEIGHT / 2:.1f}"
    # Graphviz replaces some letters behind a backslash, and HTML-like labels cannot escape it.
    name = _html(f"<B>{_text(column.name.replace(_BACKSLASH, _LOOKS_LIKE_IT))}</B>")
    with canvas.subgraph(name=f"cluster {number}", graph_attr={"bb": frame, **_BAND}) as band:
        for end, y in (("over", top), ("under", bottom)):
            position = f"{(low + high) / 2:.1f},{y:.1f}"
            band.node(f"{end} column {number}", label=name, pos=position, **_COLUMN_STYLE)
        for index, line in enumerate(lines):
            y = bottom - BOX_HEIGHT / 2 - _TOKEN_LINE * (index + 0.3)
            band.node(
                f"tokens {index} column {number}",
                label=plain(line),
                pos=f"{(low + high) / 2:.1f},{y:.1f}",
                **_AXIS_STYLE,
            )


def token_lines(tokens: str) -> list[str]:
    """Return what stands under a column: the tokens of an example prompt, in short lines."""
    lines = wrap(_clean(tokens.replace("\n", "\u21b5")), TOKEN_COLUMNS) if tokens else []
    more = len(lines) > TOKEN_LINES
    return [*lines[: TOKEN_LINES - more], *["\u2026"] * more]


def _spline(way: Route) -> str:
    """Return a line as Graphviz writes splines: the tip of its arrow, then the control points."""
    tip = [f"e,{way.tip[0]:.1f},{way.tip[1]:.1f}"] if way.tip else []
    return " ".join([*tip, *(f"{x:.1f},{y:.1f}" for x, y in way.points)])


def _id(name: str) -> str:
    """Return the name of a node without the signs that mean something in names of nodes."""
    return name.replace(":", "\ua789").replace(_BACKSLASH, _LOOKS_LIKE_IT)


def _position(layout: Layout, box: Box) -> str:
    x, y = layout.centres[box.name]
    return f"{x:.1f},{y:.1f}"


_BAND = {"style": "filled", "color": "#f6f7f9", "label": ""}
_COLUMN_STYLE = {"shape": "plaintext", "fontsize": "11"}
_AXIS_STYLE = {"shape": "plaintext", "fontcolor": _QUIET, "fontsize": "9"}


def _axis_name(index: int) -> str:
    return f"row {index}"


def _axis_labels(picture: Picture) -> list[str]:
    """Return a label for each row: `layer 5` at the first row of a layer, otherwise nothing."""
    layers = [sorted({box.layer for box in row if box.layer is not None}) for row in picture.rows]
    return [
        "" if not layer or layer == before else _layer_text(layer[0], layer[-1])
        for before, layer in zip([[], *layers], layers, strict=False)
    ]


def _layer_text(first: int, last: int) -> str:
    return f"layer {first}" if first == last else f"layers {first}-{last}"


def _box_attributes(box: Box) -> dict[str, str]:
    role = "\\n" + plain(box.role) if box.role else ""
    return {
        "label": plain(box.label) + role,
        "height": f"{box_height(box) / 72:.3f}",
        "width": f"{box_width(box) / 72:.3f}",
        "tooltip": _tooltip(box),
        **_BOX_STYLES[box.kind],
    }


def _tooltip(box: Box) -> str:
    return plain(f"{box.name} {box.role}".strip())


def _line_attributes(line: Line) -> dict[str, str]:
    stroke = line.stroke
    attributes = {
        "color": _shade(stroke),
        "penwidth": f"{stroke.width:.2f}",
        "arrowhead": stroke.arrow,
        "tooltip": plain(line.tooltip),
    }
    return attributes | ({"style": "dashed"} if stroke.dashed else {})


def _shade(stroke: Stroke) -> str:
    if stroke.opacity >= 1:
        return stroke.colour
    return f"{stroke.colour}{round(255 * stroke.opacity):02x}"


def _title_block(picture: Picture) -> str:
    """Return caption and legend as one HTML-like table, which is the label of the graph."""
    lines = [
        line
        for text in picture.caption
        for line in wrap(_clean(shortened(text, _LONGEST_CAPTION)), CAPTION_COLUMNS)
    ]
    # A viewer without Arial may use a wider font: columns of 5.6 points leave room for it.
    caption = [
        f'<TR><TD ALIGN="LEFT" WIDTH="{round(5.6 * len(x))}">{_text(x)}</TD></TR>' for x in lines
    ]
    entries = zip_longest(*picture.legend, fillvalue=Entry(""))
    rows = "".join(f"<TR>{''.join(map(_entry, row))}</TR>" for row in entries)
    legend = [f'<TR><TD ALIGN="LEFT">{_table(rows, spacing=3)}</TD></TR>'] if rows else []
    content = "".join([*caption, *legend])
    return f'<FONT POINT-SIZE="10">{_table(content, spacing=2)}</FONT>' if content else ""


def _entry(entry: Entry) -> str:
    text = (
        f'<FONT POINT-SIZE="9">{_text(shortened(entry.text, _LONGEST_ENTRY))}  </FONT>'
        if entry.text
        else ""
    )
    return f'<TD>{_sample(entry.stroke)}</TD><TD ALIGN="LEFT">{text}</TD>'


def _sample(stroke: Stroke | None) -> str:
    """Draw a short piece of a stroke as table cells; Graphviz has no lines in labels."""
    if stroke is None:
        return ""
    pieces, gap = ((5, 5, 5, 5), 3) if stroke.dashed else ((29,), 0)
    look = f'HEIGHT="{max(1, round(stroke.width))}" BGCOLOR="{_shade(stroke)}"'
    cells = "".join(f'<TD FIXEDSIZE="TRUE" WIDTH="{width}" {look}></TD>' for width in pieces)
    return _table(f"<TR>{cells}</TR>", spacing=gap)


def _table(rows: str, spacing: int = 0) -> str:
    look = f'BORDER="0" CELLBORDER="0" CELLPADDING="0" CELLSPACING="{spacing}"'
    return f"<TABLE {look}>{rows}</TABLE>"


def _html(content: str) -> str:
    return f"<{content}>"


def _text(text: str) -> str:
    """Escape text for an HTML-like label."""
    return escape(_clean(text), quote=True)


def shortened(text: str, longest: int) -> str:
    """Return a text with an ellipsis for its middle where it is longer than some characters."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}\u2026{text[-end:]}"


def plain(text: str) -> str:
    """Escape text for a plain label, in which Graphviz reads backslashes and entities."""
    return str(graphviz.escape(_clean(text))).replace("&", "&amp;")


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def _clean(text: str) -> str:
    """Replace what XML cannot carry; Graphviz refuses whole labels for one such character."""
    return _UNPRINTABLE.sub("\ufffd", text)
