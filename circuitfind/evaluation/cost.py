"""Cost of a computation, next to a plain pass forward and back: its time, and its peak memory.

The plain pass goes from the embeddings to the logits that a metric reads and back to the
embeddings, with frozen weights: the least that anything with a gradient must do. It is timed right
before the computation and right after it, so that a machine that becomes slower on the way slows
both. Memory is the peak of all tensors alive, counted as they are made and freed, beyond those that
were there before. Counting takes time, so it is done in a run of its own.
"""

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from circuitfind.graph import single_ports
from circuitfind.models.forward import Run
from circuitfind.problem import Problem

_REPEATS = 5
"""Plain passes in a row, of which the median counts."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Cost of a computation.

    Attributes:
        seconds: Processor time of it; on an accelerator, time.
        seconds_plain: Likewise of a plain pass.
        bytes: Peak of the memory of its tensors; None where that was not counted.
        bytes_plain: Likewise of a plain pass.
    """

    seconds: float
    seconds_plain: float
    bytes: int | None = None
    bytes_plain: int | None = None


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made within it that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        before = {leaf.untyped_storage()._cdata for leaf in _tensors((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in before and key not in self._seen:
                self._seen.add(key)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def plain_pass(problem: Problem) -> Tensor:
    """Run the model on the clean prompts, and return the slope of its logits at the embeddings."""
    model, prompts = problem.model, problem.prompts
    stream = model.embed(prompts.clean).joint.detach().requires_grad_()
    with torch.enable_grad():
        final = Run(model, prompts.real).run(stream)
        total = model.logits(prompts.at_steps(final)).sum()
    (slope,) = torch.autograd.grad(total, stream)
    return slope


def with_cost(
    problem: Problem, run: Callable[[], Result], counted: Callable[[], Any] | None = None
) -> tuple[Result, Cost]:
    """Return what a computation returns, and its cost.

    Args:
        problem: The question, of whose model a plain pass is made.
        run: The computation; called once.
        counted: What its peak memory is counted in; by default it is not counted.
    """

    def plain() -> float:
        # Reading a number waits for an accelerator to finish.
        return float(plain_pass(problem)[0, 0, 0])

    _find_readings(problem)
    plain()
    before = _median_seconds(plain, problem)
    result, seconds = _timed(run, problem)
    cost = Cost(seconds, (before + _median_seconds(plain, problem)) / 2)
    if counted is None:
        return result, cost
    return result, Cost(cost.seconds, cost.seconds_plain, peak_bytes(counted), peak_bytes(plain))


def _find_readings(problem: Problem) -> None:
    """Have the model find how its components read, which it does once, whoever asks first."""
    for reader in problem.graph.readers:
        if reader.layer is not None:
            for port in single_ports(reader.port):
                problem.model.reading(reader.layer, port, reader.index or 0)


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the peak of all tensors that are alive while something runs."""
    counted = PeakBytes()
    with counted:
        run()
    return counted.peak


def _median_seconds(run: Callable[[], Any], problem: Problem) -> float:
    return statistics.median(_timed(run, problem)[1] for _ in range(_REPEATS))


def _timed(run: Callable[[], Result], problem: Problem) -> tuple[Result, float]:
    clock = time.process_time if problem.model.device.type == "cpu" else time.perf_counter
    started = clock()
    result = run()
    return result, clock() - started
