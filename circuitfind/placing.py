"""Which places the prompts of a problem are told apart by: by name, by position, or by spans.

- `named`: each named position of the task, and what lies between two of them.
- `each`: every token position, for prompts of one length.
- `spans`: the spans that a task file gives to its pairs, by the position of their first token.
- a CSV file: a table of spans with a row for each prompt (`circuitfind.span_files`).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from circuitfind.errors import PromptError, quoted
from circuitfind.places import Places, every_position, named_places, places_of_spans
from circuitfind.prompts import PromptPairs
from circuitfind.span_files import SUFFIX, read_spans


def _named(prompts: PromptPairs) -> Places:
    return named_places(prompts.positions, prompts.lengths, prompts.clean.shape[1])


def _each(prompts: PromptPairs) -> Places:
    return every_position(prompts.lengths, prompts.clean.shape[1])


def _spans(prompts: PromptPairs) -> Places:
    if not prompts.spans:
        raise PromptError(
            "these prompts have no spans; give each pair of a task file its `spans`, or choose "
            "places named or each"
        )
    return places_of_spans(prompts.spans, prompts.lengths, prompts.clean.shape[1], prompts.source)


def _of_file(name: str, prompts: PromptPairs) -> Places:
    starts = read_spans(Path(name), prompts.n_prompts)
    # Where a prompt has two rows, both begin with it.
    every = {span: first.repeat_interleave(prompts.n_runs) for span, first in starts.items()}
    return places_of_spans(every, prompts.lengths, prompts.clean.shape[1], prompts.source)


PLACINGS: dict[str, Callable[[PromptPairs], Places]] = {
    "named": _named,
    "each": _each,
    "spans": _spans,
}
"""Every way to tell places apart, by the name that options use."""


def spans_file(name: str) -> Path | None:
    """Return the path of a file of spans, if that is what a name is."""
    return Path(name) if name.endswith(SUFFIX) else None


def require_placing(name: str) -> None:
    """Refuse a way to tell places apart that is not known.

    Raises:
        PromptError: The message lists those that are.
    """
    file = spans_file(name)
    if name not in PLACINGS and (file is None or not file.is_file()):
        what = "no places are called" if file is None else "there is no file"
        raise PromptError(
            f"{what} {quoted(name)}; choose one of {', '.join(PLACINGS)}, or give a {SUFFIX} file "
            "with the spans of each prompt"
        )


def placed(
    prompts: PromptPairs, places: Places | str, names: tuple[str, ...] | None = None
) -> PromptPairs:
    """Return prompts whose positions belong to places.

    Args:
        prompts: The prompts.
        places: The places, a name in `PLACINGS`, or the path of a file of spans.
        names: The places that are known already, in their order; by default those that these
            prompts have, from left to right.

    Raises:
        PromptError: The places cannot be told for these prompts, or there are others than `names`.
    """
    if isinstance(places, str):
        require_placing(places)
        places = _of_file(places, prompts) if spans_file(places) else PLACINGS[places](prompts)
    if names is not None and places.names != names:
        places = _renumbered(places, names)
    return replace(prompts, places=places)


def _renumbered(places: Places, names: tuple[str, ...]) -> Places:
    others = [name for name in places.names if name not in names]
    if others:
        raise PromptError(
            f"these prompts have the place {quoted(others[0])} and the graph tells "
            f"{', '.join(names)} apart; take prompts of the same kind"
        )
    new = torch.tensor([names.index(name) for name in places.names], device=places.of.device)
    return Places(names, new[places.of])
