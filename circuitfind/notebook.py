"""Results in a notebook: tables as HTML or pandas frames, and progress on one line."""

import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any

from circuitfind.errors import ReportError

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 40
"""Rows of a table that a notebook shows; a frame has all of them."""

Row = Mapping[str, Any]


class Framed:
    """A result that is a table."""

    @abstractmethod
    def records(self) -> Iterable[Row]:
        """Return the rows, with the same columns in all of them."""

    def to_frame(self) -> "pd.DataFrame":
        """Return all rows as a pandas frame.

        Raises:
            ReportError: pandas is not installed.
        """
        return frame(self.records())


class Tabled(Framed):
    """A result that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        """Return the first rows as HTML; notebooks call this."""
        return html_table(self.records(), repr(self))


@dataclass(frozen=True)
class Page:
    """A whole HTML page that a notebook shows in a frame.

    Attributes:
        html: The page, with all that it needs.
        height: Height of the frame in pixels.
    """

    html: str
    height: int = 800

    def __repr__(self) -> str:
        return f"<a page of {len(self.html):,} characters; a notebook shows it>"

    def _repr_html_(self) -> str:
        """Return the frame; notebooks call this."""
        return (
            f'<iframe srcdoc="{escape(self.html, quote=True)}" width="100%" '
            f'height="{self.height}" style="border: 1px solid #8886" title="report"></iframe>'
        )


def frame(rows: Iterable[Row]) -> "pd.DataFrame":
    """Return rows as a pandas frame.

    Raises:
        ReportError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise ReportError(
            "frames need pandas, which is not installed; run `pip install circuitfind[tables]`"
        ) from None
    return pd.DataFrame(list(rows))


def html_table(rows: Iterable[Row], caption: str = "", most: int = MOST_ROWS) -> str:
    """Return rows as an HTML table, with all text escaped; of a long table the first rows."""
    shown = list(islice(rows, most + 1))
    more = f"<p>the first {most} rows; to_frame() has all</p>" if len(shown) > most else ""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in (shown[0] if shown else ()))
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_text(value))}</td>' for value in row.values())}</tr>"
        for row in shown[:most]
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def observer(*, progress: bool, on_progress: Callable[[Any], None] | None) -> Callable[[Any], None]:
    """Return what is told of progress: what the caller gives, or else a line where one is asked."""
    return on_progress or (ProgressLine() if progress else lambda step: None)


class ProgressLine:
    """Writes how far a computation is on one line of stderr that is written over and over.

    It is made to be given as `on_progress`; the line ends when all is done.
    """

    def __init__(self) -> None:
        self._width, self._shown = 0, -1

    def __call__(self, step: Any) -> None:
        """Take note of a step with `done` and `total`; each percent is written once."""
        percent = int(100 * step.done / max(step.total, 1))
        is_over = step.done >= step.total
        if percent == self._shown:
            return
        self._shown, text = percent, f"{percent} %: {step}"
        # Spaces write over what is left of a longer line.
        sys.stderr.write(f"\r{text.ljust(self._width)}" + ("\n" if is_over else ""))
        sys.stderr.flush()
        self._width = 0 if is_over else len(text)
