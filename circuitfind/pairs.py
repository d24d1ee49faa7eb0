"""One clean and one corrupted prompt, and what can be wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pair:
    """One clean and one corrupted prompt before they become rows of `PromptPairs`.

    Attributes:
        clean: Tokens of the clean prompt.
        corrupted: Tokens of the corrupted prompt, as many.
        answers: The right tokens at each step.
        wrong_answers: The wrong tokens at each step; may be empty.
        steps: Where the metric reads; the last position unless given.
        positions: Named positions.
        template: Which template it was written from.
        place: Where it comes from, such as the line of a file, for messages.
    """

    clean: Sequence[int]
    corrupted: Sequence[int]
    answers: Sequence[Sequence[int]]
    wrong_answers: Sequence[Sequence[int]] = ()
    steps: Sequence[int] | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    template: int = 0
    place: str = ""

    @property
    def read_at(self) -> Sequence[int]:
        """The positions at which metrics read."""
        return (len(self.clean) - 1,) if self.steps is None else self.steps


def complaint_about(pair: Pair) -> str | None:
    """Return what is wrong with a pair, as it follows its place in a message, or None.

    Its prompts differ in length or not at all, it reads at no position or has answers for more
    steps than it reads, a position lies outside its prompt, or a token is both right and wrong.
    """
    checks = (_misalignment, _position_outside, _answers_beyond, _right_and_wrong)
    return next((complaint for check in checks if (complaint := check(pair))), None)


def _misalignment(pair: Pair) -> str | None:
    if len(pair.clean) != len(pair.corrupted):
        return (
            f" is misaligned: its clean prompt has {len(pair.clean)} tokens and its "
            f"corrupted one {len(pair.corrupted)}; make both prompts equally long"
        )
    if list(pair.clean) == list(pair.corrupted):
        return (
            ": the corruption changes nothing; give a corrupted prompt that differs from the clean "
            "one in its tokens"
        )
    return None


def _position_outside(pair: Pair) -> str | None:
    places = (*pair.read_at, *pair.positions.values())
    outside = [place for place in places if not 0 <= place < len(pair.clean)]
    if outside:
        return (
            f": position {outside[0]} lies outside its prompt of {len(pair.clean)} tokens; "
            "positions count from 0"
        )
    return None


def _answers_beyond(pair: Pair) -> str | None:
    n_steps, n_answered = len(pair.read_at), max(len(pair.answers), len(pair.wrong_answers))
    if not n_steps:
        return " reads at no position; give at least one step"
    if n_answered > n_steps:
        return (
            f" has answers for {n_answered} steps and reads {n_steps}; give one list of answers "
            "per step"
        )
    return None


def _right_and_wrong(pair: Pair) -> str | None:
    for right, wrong in zip(pair.answers, pair.wrong_answers, strict=False):
        if both := set(right) & set(wrong):
            return (
                f": the token {min(both)} is both a right and a wrong answer; give wrong answers "
                "that differ from the right ones in their tokens"
            )
    return None
