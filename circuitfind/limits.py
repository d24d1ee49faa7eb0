"""The numbers that a user can give, and the range of each.

One table serves the command line, Python, sweep files and stored settings, so that a number means
the same everywhere and is refused everywhere, before anything is loaded.
"""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from circuitfind.errors import LimitError, quoted

_KINDS: dict[bool, type[Any]] = {True: Integral, False: Real}


@dataclass(frozen=True)
class Limit:
    """The range of one number.

    Attributes:
        low: The smallest value.
        high: The largest value.
        whole: Whether only whole numbers count.
        excluded: Whether `low` itself is excluded.
        unit: What it is counted in, for messages.
        option: What the command line calls it, where several numbers share an option's name.
    """

    low: int | float
    high: int | float
    whole: bool = True
    excluded: bool = False
    unit: str = ""
    option: str = ""

    def holds(self, value: Any) -> bool:
        """Return whether a value is in the range; NaN, text and truth values never are."""
        if not isinstance(value, _KINDS[self.whole]) or isinstance(value, bool):
            return False
        above = self.low < value if self.excluded else self.low <= value
        return bool(above and value <= self.high)

    @property
    def range(self) -> str:
        """The range in words: `from 1 to 1,000,000`."""
        low, high = (_shown(bound) for bound in (self.low, self.high))
        between = f"above {low} and at most {high}" if self.excluded else f"from {low} to {high}"
        return f"{between} {self.unit}".rstrip()

    def __str__(self) -> str:
        return f"{'a whole number' if self.whole else 'a number'} {self.range}"


_COUNT = Limit(1, 1_000_000)
_SIZE = Limit(-1e30, 1e30, whole=False)
_SHARE = Limit(0, 1, whole=False, excluded=True)
_EDGES = Limit(0, 2**31)

LIMITS: dict[str, Limit] = {
    "prompts": _COUNT,
    "length": _COUNT,
    "seed": Limit(0, 10**15),
    "memory": Limit(1, 10**15, unit="bytes"),
    "budget": Limit(0, 10**9, whole=False, unit="seconds"),
    "threshold": _SIZE,
    "edges": _EDGES,
    "sampled_edges": Limit(1, 2**31),
    "rows": _COUNT,
    "shortlist": Limit(1, 100_000, unit="neurons or latents"),
    "shown": Limit(1, 100, unit="tokens and contexts"),
    "target_edges": Limit(1, 2**31),
    "target_faithfulness": Limit(0, 1, whole=False, excluded=True),
    "components": _COUNT,
    "draws": Limit(1, 10_000_000),
    "repetitions": Limit(1, 1_000),
    "families": Limit(1, 100),
    "restarts": Limit(1, 100_000),
    "share": _SHARE,
    "tolerance": Limit(0, 1, whole=False),
    "top": Limit(1, 10_000, unit="edges"),
    "max_edges": Limit(1, 10_000),
    "scale": Limit(0.1, 20, whole=False),
    "width": Limit(1, 30_000, unit="pixels"),
    "cm": Limit(1, 500, whole=False, unit="centimetres"),
    "cases": Limit(1, 10_000_000),
    "tries": Limit(1, 10_000_000),
    "workers": Limit(1, 1_024),
    "threads": Limit(1, 1_024),
    "retries": Limit(0, 1_000),
    "steps": _COUNT,
    "batch": _COUNT,
    "resamples": Limit(2, 1_000),
    "sparsity": Limit(0, 0.999_999, whole=False),
    "penalty": Limit(0, 1e30, whole=False),
    "warm_up": Limit(0, 1, whole=False),
    "learning_rate": Limit(0, 1e6, whole=False, excluded=True),
    "start": _SIZE,
    "restart_threshold": Limit(0, 1e30, whole=False, excluded=True, option="threshold"),
    "patch_threshold": Limit(0, 1e30, whole=False, excluded=True),
    "edge_threshold": Limit(0, 1e30, whole=False, excluded=True),
}
"""Every number by its name on the command line and in sweep files."""

_ALIASES = {"n_prompts": "prompts", "n_edges": "edges", "n_shown": "shown"}
"""Names in Python and in stored settings that differ from those of the command line."""


def limit_of(name: str) -> Limit | None:
    """Return the range of a number, or None if there is no number of this name."""
    return LIMITS.get(_ALIASES.get(name, name))


def require(**values: Any) -> None:
    """Refuse numbers outside their range; None stands for a number that was not given.

    Raises:
        LimitError: The message names the number, its range and the value.
    """
    for name, value in values.items():
        known = _ALIASES.get(name, name)
        limit = LIMITS[known]
        if value is not None and not limit.holds(value):
            called = limit.option or known.replace("_", " ")
            raise LimitError(f"{called} must be {limit}, not {_shown(value)}")


def require_fields(record: Any) -> None:
    """Refuse a dataclass that holds a number outside the range of its field's name.

    Raises:
        LimitError: The message names the number, its range and the value.
    """
    named = [item.name for item in fields(record) if limit_of(item.name) is not None]
    require(**{name: getattr(record, name) for name in named})


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if not isinstance(value, int) or isinstance(value, bool):
        return quoted(value)
    if abs(value) <= 10**15:
        return f"{value:,}"
    return f"{'-' if value < 0 else ''}10^{math.floor(math.log10(abs(value)))} or so"
