"""Chunks of prompts on workers: the same questions, asked of another process.

Whoever searches holds handles; the states and candidates that they stand for are with the worker.
Each handle knows how its value came about, call by call from the full graph on. So where a worker
is lost, the one that replaces it makes the same calls and comes to the same values, to the last
bit. Only the metric of each prompt is sent back, and it is averaged where the search is.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuitfind.engine.chunk import Asked, ChunkEngine, Pair, Values
from circuitfind.engine.state import Spans, spans
from circuitfind.errors import WorkerError
from circuitfind.workers.crew import Actor, Answer, LostError

_MOST_LOST = 3
"""How many workers in a row may be lost without an answer."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """One call that makes a value on a worker.

    Attributes:
        of: How the value came about that the call starts from; None where it needs none.
        chunk: Number of the chunk that is called.
        method: Which of its methods.
        args: What follows the value.
        more: What is given by name.
    """

    of: "Recipe | None"
    chunk: int
    method: str
    args: tuple[Any, ...]
    more: dict[str, Any]


class Handle:
    """A value on a worker, which forgets it when the handle is gone."""

    def __init__(self, worker: "RemoteWorker", recipe: Recipe) -> None:
        self._worker, self.recipe = worker, recipe
        worker.keep(recipe)
        weakref.finalize(self, worker.drop, recipe).atexit = False

    @property
    def final(self) -> Tensor:
        """What the logits read, at the last positions or all."""
        final: Tensor = self._worker.ask(self.recipe, "final")()
        return final


class RemoteState(Handle):
    """A state on a worker.

    Attributes:
        kept: True where an edge is kept.
    """

    def __init__(
        self, worker: "RemoteWorker", recipe: Recipe, kept: NDArray[np.bool_], local: ChunkEngine
    ) -> None:
        super().__init__(worker, recipe)
        self.kept, self._local = kept, local

    @cached_property
    def spans(self) -> Spans:
        """At how many positions components matter."""
        return spans(self._local.graph, self.kept, self._local.horizon)


class RemoteChunk:
    """Answers what happens when edges are cut, for prompts that are with a worker.

    Args:
        number: Number of the chunk.
        worker: Where it is.
        local: The same chunk here, which is not searched.
    """

    def __init__(self, number: int, worker: "RemoteWorker", local: ChunkEngine) -> None:
        self._number, self._worker, self._local = number, worker, local

    @property
    def most_candidates(self) -> int:
        """How many candidates are evaluated at once at most."""
        return self._local.most_candidates

    @cached_property
    def together(self) -> int:
        """For how many candidates the metric is measured at once."""
        return int(self._worker.ask(None, "together", chunk=self._number)())

    def start(self) -> RemoteState:
        """Return the full graph: every edge kept."""
        kept = self._local.graph.edge_mask.numpy().copy()
        return self._state(self._recipe(None, "start"), kept)

    def cut(self, state: RemoteState, edges: Iterable[Pair]) -> RemoteState:
        """Return the state with these edges cut as well; edges already cut stay so."""
        edges, kept = list(edges), state.kept.copy()
        for pair in edges:
            kept[pair] = False
        return self._state(self._recipe(state, "cut", edges), kept)

    def tried(
        self, state: RemoteState, reader: int, writers: Sequence[int], *, nested: bool
    ) -> Handle:
        """Evaluate cutting a reader's first edge, its first two and so on, or each alone."""
        recipe = self._recipe(state, "tried", reader, list(writers), nested=nested)
        return Handle(self._worker, recipe)

    def pick(self, tried: Handle, candidate: int, kept: NDArray[np.bool_]) -> RemoteState:
        """Return one candidate as a state; `kept` says which edges it keeps."""
        return self._state(self._recipe(tried, "pick", candidate, kept), kept)

    def values(self, state: RemoteState) -> Asked[Values]:
        """Ask for the metric of each prompt in a state."""
        return self._worker.ask(state.recipe, "values")

    def values_of(self, tried: Handle, some: slice) -> Asked[Values]:
        """Ask for the metric of each prompt in some of the candidates, at most `together`."""
        return self._worker.ask(tried.recipe, "values_of", some)

    def _recipe(self, of: Handle | None, method: str, *args: Any, **more: Any) -> Recipe:
        return Recipe(None if of is None else of.recipe, self._number, method, args, more)

    def _state(self, recipe: Recipe, kept: NDArray[np.bool_]) -> RemoteState:
        return RemoteState(self._worker, recipe, kept, self._local)


class RemoteWorker:
    """A worker as whoever searches sees it; one that is lost is replaced.

    Args:
        start: Starts the worker, with the chunks that it is to have.
        device: Where values are moved that it sends.
    """

    def __init__(self, start: Callable[[], Actor], device: torch.device) -> None:
        self._start, self._device = start, device
        self._actor, self._generation, self._n_lost = start(), 0, 0
        self._n_made = 0
        self._held: dict[Recipe, int] = {}
        self._wanted: set[Recipe] = set()
        self._dropped: list[int] = []

    def close(self) -> None:
        """End the worker."""
        self._actor.kill()

    def keep(self, recipe: Recipe) -> None:
        """Have a value made, and kept until it is dropped."""
        self._wanted.add(recipe)
        self._name(recipe)

    def _name(self, recipe: Recipe) -> int:
        """Return the name of a value that is kept, after making it where it is not there."""
        missing: list[Recipe] = []
        first: Recipe | None = recipe
        while first is not None and first not in self._held:
            missing.append(first)
            first = first.of
        before = None if first is None else self._held[first]
        for each in reversed(missing):
            dropped, self._dropped, self._n_made = self._dropped, [], self._n_made + 1
            call = each.chunk, each.method, before, each.args, each.more
            self._actor.tell("make", self._n_made, *call, dropped)
            before = self._n_made
            if each in self._wanted:
                self._held[each] = before
            else:
                # On the way to what is wanted; forgotten once the next one is made of it.
                self._dropped.append(before)
        assert before is not None
        return before

    def drop(self, recipe: Recipe) -> None:
        """Have a value forgotten; said with the next call."""
        self._wanted.discard(recipe)
        if (name := self._held.pop(recipe, None)) is not None:
            self._dropped.append(name)

    def ask(
        self, of: Recipe | None, method: str, *args: Any, chunk: int | None = None
    ) -> Asked[Any]:
        """Ask for something; call what is returned to wait for it.

        Raises:
            WorkerError: Workers are lost again and again.
        """

        def sent() -> tuple[Answer, int]:
            name = None if of is None else self._name(of)
            number = chunk if of is None else of.chunk
            return self._actor.ask("ask", number, method, name, args), self._generation

        asked = sent()

        def answer() -> Any:
            nonlocal asked
            while True:
                try:
                    value = asked[0].get()
                except LostError as error:
                    if asked[1] == self._generation:
                        self._replace(error)
                    asked = sent()
                else:
                    self._n_lost = 0
                    return self._received(value)

        return answer

    def _received(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.tensor(value, device=self._device)
        return value

    def _replace(self, error: LostError) -> None:
        self._n_lost += 1
        if self._n_lost == _MOST_LOST:
            raise WorkerError(
                f"{_MOST_LOST} workers in a row were lost before they answered: {error}; give "
                "fewer --workers or less --memory, and in a script start searches below "
                "`if __name__ == '__main__':`"
            )
        self._actor.kill()
        self._actor = self._start()
        self._generation += 1
        self._held, self._dropped = {}, []
