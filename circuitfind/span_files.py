"""Tables of spans: a CSV file with a row for each prompt and a column for each span.

A cell holds the number of the span's first token, the beginning-of-sequence token counted; an empty
cell means that the prompt lacks the span. Columns called `prompt` and `length` are not read, so
that schemas of position-aware circuits (Haklay et al. 2025, arXiv 2502.04577) can be used as they
are.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from circuitfind.errors import PromptError, quoted
from circuitfind.files import read_text
from circuitfind.graph import require_place_names

SUFFIX = ".csv"

_NOT_SPANS = ("prompt", "length")
_MOST_BYTES = 64_000_000


def read_spans(path: Path, n_prompts: int) -> dict[str, Int[Tensor, " batch"]]:
    """Return where each span begins in each prompt; -1 where a prompt lacks it.

    Args:
        path: The file.
        n_prompts: How many prompts there are.

    Raises:
        PromptError: It cannot be read, has other than a row for each prompt, or a cell is no
            number; the message names the line and the span.
        GraphError: A span cannot be called that.
    """
    header, *rows = _lines(path)
    names = [name for name in header if name not in _NOT_SPANS]
    require_place_names(names)
    if len(rows) != n_prompts:
        raise PromptError(
            f"{path} has {len(rows)} rows and there are {n_prompts} prompts; give a row for each "
            "prompt, in their order"
        )
    starts: dict[str, list[int]] = {name: [] for name in names}
    for line, row in enumerate(rows, start=2):
        cells = dict(zip(header, row, strict=False))
        for name in names:
            starts[name].append(_start(path, line, name, cells))
    return {name: torch.tensor(column) for name, column in starts.items()}


def _lines(path: Path) -> list[list[str]]:
    try:
        text = read_text(path, encoding="utf-8-sig", most=_MOST_BYTES)
        rows = list(_rows(text))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptError(f"cannot read the spans in {path}: {reason}; give a CSV file") from None
    if not rows:
        raise PromptError(f"{path} is empty; give a line with the names of spans, then the rows")
    return rows


def _rows(text: str) -> Iterator[list[str]]:
    for row in csv.reader(io.StringIO(text, newline=""), strict=True):
        if any(cell.strip() for cell in row):
            yield [cell.strip() for cell in row]


def _start(path: Path, line: int, name: str, cells: Mapping[str, str]) -> int:
    cell = cells.get(name, "")
    if not cell:
        return -1
    if not cell.isdecimal() or len(cell) > 9:
        raise PromptError(
            f"{path}, row {line}: the span {quoted(name)} begins at {quoted(cell)}; give the "
            "number of its first token, or leave the cell empty"
        )
    return int(cell)
