"""Choice of layers and heads: numbers and ranges such as `3-5,8`."""

from collections.abc import Sequence

from circuitfind.errors import MethodError


def chosen(wanted: str | Sequence[int] | None, n: int, what: str) -> tuple[int, ...]:
    """Return the chosen ones of `n` numbers, from 0, in ascending order; all unless chosen.

    Args:
        wanted: Numbers, or text of numbers and ranges (both ends included), separated by commas.
        n: How many there are.
        what: What they are, for messages.

    Raises:
        MethodError: It names none, or one that does not exist.
    """
    if wanted is None:
        return tuple(range(n))
    spans = _spans(wanted, what) if isinstance(wanted, str) else [(each, each) for each in wanted]
    unknown = [end for span in spans for end in span if not 0 <= end < n]
    if unknown or not spans or any(last < first for first, last in spans):
        said = unknown[0] if unknown else wanted
        raise MethodError(
            f"no {what} {said!r}: the model has the {what}s 0 to {n - 1}; give numbers and "
            "ascending ranges, such as 3-5,8"
        )
    return tuple(sorted({each for first, last in spans for each in range(first, last + 1)}))


def _spans(text: str, what: str) -> list[tuple[int, int]]:
    """Return the first and the last number of each range."""
    spans = []
    for word in (word.strip() for word in text.split(",")):
        first, dash, last = word.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdecimal() and len(end) < _MOST_DIGITS for end in ends):
            raise MethodError(
                f"{word!r} is not a {what} or a range of them; give numbers and ranges, such as "
                "3-5,8"
            )
        spans.append((int(ends[0]), int(ends[1])))
    return spans


_MOST_DIGITS = 10
