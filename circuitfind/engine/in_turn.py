"""Tests of edges one after the other, from the final streams of nested candidates.

There are two ways: from exact losses, or from bounds on the loss where these prove that an edge is
cut.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from circuitfind.engine.candidates import Test
from circuitfind.engine.kl_bounds import Anchor
from circuitfind.engine.readout import Readout
from circuitfind.engine.state import Candidates, Stream

IsCut = Callable[[str, float], bool]
"""Says of an edge by name, or of a group by description, and of its effect, whether it is cut.

Bounds rely on this: an effect between two that are cut is cut as well.
"""

ANCHOR_COST = 3
"""About how many exact losses an anchor costs; without bounds, many are computed together."""

_FEWEST_TESTS = 8
"""Bounds are not tried on fewer edges into a reader."""

_TRIED_SHARE, _TRIED = 0.5, 16
"""Bounds are given up for a reader when they have cost this share of its exact losses more than
they saved, and this number of losses at least."""

_MOST_CREDIT = 128
"""How many exact losses bounds may cost beyond what they save before they are given up."""


def are_enough(n_tests: int) -> bool:
    """Return whether bounds can pay for so many edges into a reader."""
    return n_tests >= _FEWEST_TESTS


def _allowed(n_tests: int) -> int:
    """Return how many exact losses bounds may cost beyond what they save, for one reader."""
    return max(_TRIED, int(_TRIED_SHARE * n_tests))


class Credit:
    """Says whether bounds are tried on the next reader.

    It follows from nothing but how many tests they have settled, so a resumed search agrees with
    an uninterrupted one.
    """

    def __init__(self) -> None:
        self._left = _MOST_CREDIT

    @property
    def is_left(self) -> bool:
        """Whether bounds are tried."""
        return self._left >= 0

    def count(self, n_tests: int, n_settled: int) -> None:
        """Count the tests of a reader, and how many of them bounds have settled."""
        if not are_enough(n_tests):
            return
        gain = max(n_settled - (ANCHOR_COST - 1) * (n_tests - n_settled), -_allowed(n_tests))
        # Where they are not tried, the credit slowly returns, and they are tried again.
        self._left = min(_MOST_CREDIT, self._left + (gain if self.is_left else 1))


class Exactly:
    """Tests with exact losses.

    Args:
        before: The loss before the first edge is cut.
    """

    def __init__(self, before: float) -> None:
        self._before = before

    def tests(
        self,
        names: Sequence[str],
        losses: Callable[[int], Iterator[float]],
        streams: Callable[[], Candidates],
        first: int = 0,
    ) -> Iterator[Test]:
        """Yield one test after the other, and end after the first edge that is kept.

        Args:
            names: The edges.
            losses: Yields the losses with the first one cut, the first two, and so on, from a
                number on.
            streams: Returns the final stream before any of them is cut, and then those with the
                first one cut, the first two, and so on.
            first: The number of the first test.
        """
        for name, after in zip(names[first:], losses(first), strict=True):
            test = Test(name, self._before, after)
            yield test
            if test.kept:
                return
            self._before = after


class _Range(NamedTuple):
    """The values between which a loss lies; both are the same where it is known."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def error(self) -> float:
        return (self.high - self.low) / 2


class WithBounds:
    """Tests of which most are settled by bounds on the loss.

    The bounds start from an anchor, a state whose loss is exact. A test is settled if its edge is
    cut whatever the effect is within the bounds. Otherwise the anchor moves to the state before the
    edge is cut. If that does not settle it either, the state after it becomes an anchor as well,
    and the test is exact. So every edge that is kept has an exact effect. Once the anchors have
    cost too much, all further losses are computed exactly.

    Args:
        readout: Computes losses and bounds.
        is_cut: The rule by which edges are cut.
        start: The final stream before the first edge is cut.
        n: How many edges there are.
    """

    def __init__(self, readout: Readout, is_cut: IsCut, start: Stream, n: int) -> None:
        self._readout, self._is_cut = readout, is_cut
        self._credit = _allowed(n)
        self._exactly: Exactly | None = None
        self._set(readout.anchor(start))

    def _set(self, anchor: Anchor) -> None:
        """Have the bounds start from an anchor, which is the state that the next test starts from.

        Its loss is then exact.
        """
        self._anchor, self._loss, self._is_exact = anchor, self._readout.loss_at(anchor), True

    def tests(
        self,
        names: Sequence[str],
        losses: Callable[[int], Iterator[float]],
        streams: Callable[[], Candidates],
    ) -> Iterator[Test]:
        """Yield one test after the other as `Exactly.tests` does, with the same arguments."""
        if self._exactly is not None:
            yield from self._exactly.tests(names, losses, streams)
            return
        finals = streams()
        ranges = self._ranges(finals)
        for number, name in enumerate(names, 1):
            test = self._settled(name, *ranges[number - 1 : number + 1])
            if test is None and not self._is_exact:
                self._set(self._readout.anchor(finals[number - 1]))
                self._credit -= ANCHOR_COST
                ranges[number - 1 :] = self._ranges(finals[number - 1 :])
                test = self._settled(name, *ranges[number - 1 : number + 1])
            if test is not None:
                self._credit += 1
                yield test
                self._is_exact = False
                continue
            after = self._readout.anchor(finals[number])
            self._credit += 1 - ANCHOR_COST
            test = Test(name, self._loss, self._readout.loss_at(after))
            yield test
            if test.kept:
                return
            self._set(after)
            if self._credit < 0:
                self._exactly = Exactly(self._loss)
                yield from self._exactly.tests(names, losses, streams, number)
                return
            ranges[number:] = self._ranges(finals[number:])

    def _settled(self, name: str, before: _Range, after: _Range) -> Test | None:
        """Return the test if its edge is cut whatever its effect is within the bounds."""
        ends = after.low - before.high, after.high - before.low
        if not all(self._is_cut(name, effect) for effect in ends):
            return None
        return Test(name, before.middle, after.middle, error=before.error + after.error)

    def _ranges(self, finals: Candidates) -> list[_Range]:
        """Return what is known of the losses of states, of which the next test starts from one."""
        rises = self._readout.rises(self._anchor, finals)
        ranges = [_Range(*(self._loss + end for end in ends)) for ends in rises]
        if self._is_exact:
            ranges[0] = _Range(self._loss, self._loss)
        return ranges
