"""Workers for a search: started with the problem and their chunks of its prompts."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from circuitfind.engine.chunk import ChunkEngine, chunk_engines
from circuitfind.engine.memory import Plan
from circuitfind.engine.remote import RemoteChunk, RemoteWorker
from circuitfind.errors import CircuitfindError, WorkerError
from circuitfind.problem import Problem
from circuitfind.workers.crew import Workers
from circuitfind.workers.hiring import crew_of


class ChunkHost:
    """The chunks of a worker, and what was made of them; in the worker.

    Args:
        packed: The problem, with all its prompts, as `packed` returns it.
        planned: How its prompts are split.
        numbers: Which of the chunks the worker has.
        fingerprint: That of the model's weights.
    """

    def __init__(
        self, packed: bytes, planned: Plan, numbers: Sequence[int], fingerprint: str
    ) -> None:
        problem: Problem = pickle.loads(packed)
        if problem.model.fingerprint != fingerprint:
            raise WorkerError(
                f"a worker loads other weights as {problem.model.name!r} than are searched here; "
                "restore the model's files, or make them the same on every node"
            )
        problem = replace(problem, prompts=problem.prompts.to(problem.model.device))
        engines = chunk_engines(problem, planned, numbers)
        self._chunks = dict(zip(numbers, engines, strict=True))
        self._made: dict[int, Any] = {}

    def make(
        self,
        name: int,
        chunk: int,
        method: str,
        of: int | None,
        args: Sequence[Any],
        more: dict[str, Any],
        dropped: Sequence[int],
    ) -> None:
        """Make a value, and forget others; an error is that of whoever asks for the value."""
        before = () if of is None else (self._made[of],)
        for old in dropped:
            self._made.pop(old, None)
        if before and isinstance(before[0], Exception):
            self._made[name] = before[0]
            return
        try:
            self._made[name] = getattr(self._chunks[chunk], method)(*before, *args, **more)
        except Exception as error:  # noqa: BLE001 - told to whoever asks
            self._made[name] = error

    def ask(self, chunk: int, method: str, of: int | None, args: Sequence[Any]) -> Any:
        """Return a chunk's answer about a value, or about itself, as it can be sent."""
        engine = self._chunks[chunk]
        if of is None:
            return getattr(engine, method)
        if isinstance(made := self._made[of], Exception):
            raise made
        answer = made.final if method == "final" else getattr(engine, method)(made, *args)()
        return answer.cpu().numpy()


@contextmanager
def hired(
    workers: Workers, problem: Problem, planned: Plan, chunks: Sequence[ChunkEngine]
) -> Iterator[list[RemoteChunk | ChunkEngine]]:
    """Start workers, share chunks out, and end the workers in the end.

    The threads of this machine are shared out among the workers. Unless these are on a Ray cluster,
    this process is one of them, and keeps the last share.

    Args:
        workers: Which workers.
        problem: What is searched.
        planned: How its prompts are split.
        chunks: The chunks here.

    Yields:
        What answers for each chunk: a worker, or the chunk here.
    """
    content, model, threads = packed(problem), problem.model, torch.get_num_threads()
    n, n_here = min(workers.n, len(chunks)), 0 if workers.ray else 1
    crew = crew_of(replace(workers, n=n), model.device.type, max(1, threads // n))
    # On a cluster there may be room for fewer.
    parts = np.array_split(range(len(chunks)), crew.size + n_here)
    with ExitStack() as stack:
        stack.callback(crew.close)
        found: list[RemoteChunk | ChunkEngine] = list(chunks)
        for place, numbers in enumerate(part.tolist() for part in parts[: crew.size]):
            given = content, planned, numbers, model.fingerprint
            worker = RemoteWorker(partial(crew.start, place, ChunkHost, *given), model.device)
            stack.callback(worker.close)
            for number in numbers:
                found[number] = RemoteChunk(number, worker, chunks[number])
        if n_here:
            torch.set_num_threads(max(1, threads // n))
            stack.callback(torch.set_num_threads, threads)
        yield found


def packed(problem: Problem) -> bytes:
    """Return a problem as it is sent to workers.

    Raises:
        WorkerError: It cannot be sent.
        ModelError: Its model cannot.
    """
    try:
        return pickle.dumps(replace(problem, prompts=problem.prompts.to(torch.device("cpu"))))
    except CircuitfindError:
        raise
    except Exception as error:
        raise WorkerError(
            f"the question cannot be sent to workers ({error}); make its metric and its ablation "
            "of functions that a module defines by name, or search without workers"
        ) from None
