"""One clean and one corrupted prompt, and what can be wrong with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from circuitfind.alignment import complaint_about_spans

Answer = int | Sequence[int]
"""An answer: its token, or its tokens where it takes several."""


@dataclass(frozen=True)
class Pair:
    """One clean and one corrupted prompt before they become rows of `PromptPairs`.

    Attributes:
        clean: Tokens of the clean prompt.
        corrupted: Tokens of the corrupted prompt: as many, or with the same spans.
        answers: The right answers at each step. An answer of several tokens must be the only right
            one, and the pair must read at its last position alone.
        wrong_answers: The wrong answers at each step; may be empty.
        steps: Where the metric reads; the last position unless given.
        positions: Named positions.
        spans: Where named spans begin; each ends where the next one begins.
        corrupted_spans: The same of the corrupted prompt, where its spans lie elsewhere; it may
            then have another number of tokens.
        template: Which template it was written from.
        source: Where it comes from, such as the line of a file, for messages.
    """

    clean: Sequence[int]
    corrupted: Sequence[int]
    answers: Sequence[Sequence[Answer]]
    wrong_answers: Sequence[Sequence[Answer]] = ()
    steps: Sequence[int] | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    spans: Mapping[str, int] = field(default_factory=dict)
    corrupted_spans: Mapping[str, int] = field(default_factory=dict)
    template: int = 0
    source: str = ""

    @property
    def read_at(self) -> Sequence[int]:
        """The positions at which metrics read."""
        return (len(self.clean) - 1,) if self.steps is None else self.steps

    @property
    def has_long_answer(self) -> bool:
        """Whether an answer takes several tokens."""
        return any(
            len(tokens_of(each)) > 1 for side in _sides(self) for step in side for each in step
        )


class Side(IntEnum):
    """Which of a pair's two answers the tokens after its prompts belong to."""

    WRONG = -1
    ONLY = 0
    RIGHT = 1


def tokens_of(answer: Answer) -> tuple[int, ...]:
    """Return the tokens of an answer."""
    return (answer,) if isinstance(answer, int) else tuple(answer)


def forced(pairs: Sequence[Pair]) -> list[tuple[Pair, Side]]:
    """Return pairs whose prompts go on with their answers, read at each token of these.

    The tokens of an answer but its last are appended to both prompts of its pair (teacher forcing).
    Up to where both answers differ first, one run shows the probabilities of both. Where a wrong
    answer goes on beyond that, its pair becomes two: one goes on with the right answer and one with
    the wrong answer. All other pairs are then given twice, so that each has the same weight.
    """
    spelled = [(pair, _spelled(pair.answers), _spelled(pair.wrong_answers)) for pair in pairs]
    apart = [len(wrong) > _n_shared(right, wrong) + 1 for _, right, wrong in spelled]
    found = []
    for (pair, right, wrong), two in zip(spelled, apart, strict=True):
        own = _run(pair, right, wrong)
        if two:
            found += [(own, Side.RIGHT), (_swapped(_run(pair, wrong, right)), Side.WRONG)]
        else:
            found += [(own, Side.ONLY)] * (1 + any(apart))
    return found


Spelled = Sequence[Sequence[int]]
"""The choices of tokens at each place of an answer."""


def _spelled(by_step: Sequence[Sequence[Answer]]) -> Spelled:
    answers = [tokens_of(answer) for answer in (by_step[0] if by_step else ())]
    if len(answers) == 1:
        return [[token] for token in answers[0]]
    return [[token for (token,) in answers]] if answers else []


def _n_shared(right: Spelled, wrong: Spelled) -> int:
    """Return how many tokens two answers have in common before they differ."""
    same = (list(one) == list(other) for one, other in zip(right, wrong, strict=False))
    return next((n for n, equal in enumerate(same) if not equal), 0)


def _run(pair: Pair, own: Spelled, other: Spelled) -> Pair:
    """Return a pair that goes on with its own answer; the other one is read as far as it can be."""
    before = [token for (token,) in own[:-1]]
    last = len(pair.clean) - 1
    return replace(
        pair,
        clean=[*pair.clean, *before],
        corrupted=[*pair.corrupted, *before],
        answers=own,
        wrong_answers=other[: _n_shared(own, other) + 1],
        steps=range(last, last + max(1, len(own))),
    )


def _swapped(pair: Pair) -> Pair:
    return replace(pair, answers=pair.wrong_answers, wrong_answers=pair.answers)


def complaint_about(pair: Pair) -> str | None:
    """Return what is wrong with a pair, as it follows its source in a message, or None.

    Its prompts differ in length or not at all, it reads at no position or has answers for more
    steps than it reads, a position lies outside its prompt, or a token is both right and wrong.
    """
    checks = (_misalignment, _position_outside, _answers_beyond, _long_answer, _right_and_wrong)
    return next((complaint for check in checks if (complaint := check(pair))), None)


def _misalignment(pair: Pair) -> str | None:
    lengths = len(pair.clean), len(pair.corrupted)
    if pair.corrupted_spans:
        if complaint := complaint_about_spans(pair.spans, pair.corrupted_spans, lengths):
            return complaint
    elif lengths[0] != lengths[1]:
        return (
            f" is misaligned: its clean prompt has {lengths[0]} tokens and its corrupted one "
            f"{lengths[1]}; make both prompts equally long, or give the spans of both"
        )
    if list(pair.clean) == list(pair.corrupted):
        return (
            ": the corruption changes nothing; give a corrupted prompt that differs from the clean "
            "one in its tokens"
        )
    return None


def _position_outside(pair: Pair) -> str | None:
    places = (*pair.read_at, *pair.positions.values(), *pair.spans.values())
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
    for step in zip(pair.answers, pair.wrong_answers, strict=False):
        right, wrong = ({tokens_of(answer) for answer in side} for side in step)
        if both := right & wrong:
            said = " ".join(map(str, min(both)))
            return (
                f": the token {said} is both a right and a wrong answer; give wrong answers "
                "that differ from the right ones in their tokens"
            )
    return None


def _long_answer(pair: Pair) -> str | None:
    if not pair.has_long_answer:
        return None
    if list(pair.read_at) != [len(pair.clean) - 1]:
        return (
            " has an answer of several tokens and does not read at its last position alone; leave "
            "out the steps, or give answers of one token"
        )
    right, wrong = ([tokens_of(each) for step in side for each in step] for side in _sides(pair))
    for kind, answers in (("right", right), ("wrong", wrong)):
        if len(answers) > 1:
            return (
                f" has {len(answers)} {kind} answers, and one answer takes several tokens; give "
                "one right answer and at most one wrong one, or answers of one token"
            )
    if not right or not all(map(len, (*right, *wrong))):
        return ": an answer of several tokens needs a right answer; give one"
    if wrong and _begins(right[0], wrong[0]):
        return (
            ": one of its two answers begins with the other, so they do not exclude each other; "
            "give answers that differ in some token"
        )
    return None


def _sides(pair: Pair) -> tuple[Sequence[Sequence[Answer]], Sequence[Sequence[Answer]]]:
    return pair.answers, pair.wrong_answers


def _begins(one: Sequence[int], other: Sequence[int]) -> bool:
    shorter = min(len(one), len(other))
    return one != other and one[:shorter] == other[:shorter]
