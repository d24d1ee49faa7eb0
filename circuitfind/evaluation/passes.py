"""A cache on disk of circuits that were measured, so that an interrupted evaluation repeats none.

A line of JSON for each: a key, the numbers of each prompt, and how long it took. The key is a hash
of all that decides the outcome, so lines of other models, prompts or settings are never taken for
these. A last line that was cut short is dropped, as if it had not been measured.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.models.fingerprint import weights_fingerprint
from circuitfind.problem import Problem
from circuitfind.records import from_json, parse_json
from circuitfind.store import Log

Rows = Mapping[str, Float[Tensor, " batch"]]
"""A number for each prompt: of a circuit by each metric, or of several circuits by their place;
or a score for each edge."""

Mask = Bool[Tensor, "writer reader"]


class PassLog:
    """Passes, made now or earlier.

    Attributes:
        n_earlier: How many the file held at first.

    Args:
        file: Where they are kept; None keeps them as long as this object.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._log = None if file is None else Log(file)
        self._known = dict(_earlier(self._log.lines)) if self._log else {}
        self.n_earlier = len(self._known)

    def get(self, key: str, metrics: Sequence[str], n_prompts: int) -> tuple[Rows, float] | None:
        """Return what a pass gave, and the seconds that it took; None if it was not made yet."""
        found = self._known.get(key)
        if found is None:
            return None
        shapes = [(name, len(values)) for name, values in found[0].items()]
        return found if shapes == [(name, n_prompts) for name in metrics] else None

    def add(self, key: str, rows: Rows, seconds: float) -> None:
        """Keep what a pass gave."""
        self._known[key] = rows, seconds
        if self._log is not None:
            plain = [[name, values.tolist()] for name, values in rows.items()]
            self._log.write([json.dumps([key, plain, seconds]).encode() + b"\n"])

    def close(self) -> None:
        """Write no more."""
        if self._log is not None:
            self._log.close()


_Line = tuple[str, tuple[tuple[str, tuple[float, ...]], ...], float]


def _earlier(lines: Sequence[bytes]) -> Iterator[tuple[str, tuple[Rows, float]]]:
    """Yield what the lines of a file hold."""
    for line in lines:
        try:
            key, rows, seconds = from_json(_Line, parse_json(line, finite=False))
        except ValueError:
            continue
        tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in rows}
        yield key, (tensors, seconds)


def key_of(problem: Problem, metrics: tuple[str, ...], n_chunks: int) -> str:
    """Return what all circuits measured on some prompts have in common, as a hash."""
    graph, model = problem.graph, problem.model
    constants = problem.ablation.constants
    facts = [
        model.fingerprint, str(model.dtype), str(model.device), problem.prompts.fingerprint,
        *([] if constants is None else [weights_fingerprint(constants)]),
        problem.ablation.name, metrics, n_chunks,
        repr(graph.shape), graph.split_qkv, graph.split_embedding, graph.places,
    ]  # fmt: skip
    return _hash(json.dumps(facts).encode())


def key_of_pass(common: str, kept: Mask) -> str:
    """Return the key of a circuit."""
    return _hash(f"{common} ".encode() + kept.cpu().numpy().tobytes())


def key_of_cuts(common: str, kept: Mask, reader: int) -> str:
    """Return the key of a circuit without each of its edges into one reader."""
    return _hash(f"{common} without {reader} ".encode() + kept.cpu().numpy().tobytes())


def key_of_scores(common: str, what: str, prompt: int) -> str:
    """Return the key of the scores of all edges for one prompt."""
    return _hash(f"{common} {what} of prompt {prompt}".encode())


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
