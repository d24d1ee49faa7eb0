"""Change the colours and the size of a drawing that is written as DOT text.

In colour, queries, keys and values differ in colours that stay apart for colour-blind readers
(Okabe and Ito 2008), and in arrow heads. In grey they differ in brightness and arrow heads.
"""

import colorsys
import re
from typing import Literal, get_args

from circuitfind.errors import ReportError, quoted

Style = Literal["colour", "greyscale", "dark"]

_VALUE = r"(?P<colour>#[0-9a-f]{6}|white|black)(?P<opacity>[0-9a-f]{2})?"
_PARTS = re.compile(
    r"=<(?:[^<>]|<[^<>]*>)*>"  # an HTML label
    rf'|\b(?P<name>color|fillcolor|fontcolor|bgcolor)=(?P<quote>"?){_VALUE}(?P=quote)(?=[\s\]])'
    r'|"(?:[^"\\]|\\.)*"'  # any other text
)
_IN_HTML = re.compile(rf'\b(?P<name>(?:BG)?COLOR)="{_VALUE}"')
_NAMED = {"white": "#ffffff", "black": "#000000"}
_GREYS = {
    "#0072b2": "#000000",
    "#d55e00": "#7a7a7a",
    "#009e73": "#b0b0b0",
    "#cc79a7": "#3c3c3c",
    "#56b4e9": "#d0d0d0",
    "#999999": "#c8c8c8",
}
"""Greys that stay apart, for queries, keys, values, merged ports, moves, and shared edges."""

_LEAST, _MOST = 0.10, 0.93
"""Lightness of a dark drawing's background, and of its text."""

_START = "digraph circuit {\n"
_CM_PER_INCH, _ANY_HEIGHT = 2.54, 10_000


def restyled(dot: str, style: str = "colour", cm: float | None = None) -> str:
    """Return the DOT text of the same drawing in other colours, or of another size.

    Args:
        dot: The text, as `write_dot` returns it.
        style: `colour`; `greyscale`; or `dark`, light lines on a dark ground.
        cm: Width on paper in centimetres; by default what the drawing needs at 10 points.

    Raises:
        ReportError: There is no such style.
    """
    if style not in get_args(Style):
        raise ReportError(
            f"no style named {quoted(style)}; choose one of {', '.join(get_args(Style))}"
        )
    if style != "colour":
        # Elements without a colour are black.
        ink = _changed("#000000", style)
        start = f'\tgraph [fontcolor="{ink}"]\n\tnode [color="{ink}" fontcolor="{ink}"]\n'
        coloured = _PARTS.sub(lambda found: _restyled(found, style), dot)
        dot = coloured.replace(_START, _START + start, 1)
    if cm is not None:
        size = f'\tgraph [size="{cm / _CM_PER_INCH:.4f},{_ANY_HEIGHT}!"]\n'
        dot = dot.replace(_START, _START + size, 1)
    return dot


def _restyled(found: re.Match[str], style: str) -> str:
    """Return a part of DOT text in a style: an attribute, an HTML label, or other text as it is."""
    if found["name"]:
        return _in_style(found, style)
    if found[0].startswith("=<"):
        return _IN_HTML.sub(lambda inner: _in_style(inner, style), found[0])
    return found[0]


def _in_style(found: re.Match[str], style: str) -> str:
    colour = _changed(_NAMED.get(found["colour"], found["colour"]), style)
    return f'{found["name"]}="{colour}{found["opacity"] or ""}"'


def _changed(colour: str, style: str) -> str:
    """Return a colour as it is in a style."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    if style == "greyscale":
        bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        return _GREYS.get(colour, _hex(bright, bright, bright))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    return _hex(*colorsys.hls_to_rgb(hue, _LEAST + (_MOST - _LEAST) * (1 - light), saturation))


def _hex(*parts: float) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
