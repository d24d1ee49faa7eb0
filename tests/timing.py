"""What differs between two runs of the same search: how long they took."""

from typing import Any


def without_times(search: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a search without its durations, which must all be there."""
    times = {name: value for name, value in search.items() if name.startswith("seconds")}
    parts = [times[f"seconds_{part}"] for part in ("search", "checks", "scorecard")]
    assert min(parts) > 0 and abs(times["seconds"] - sum(parts)) < 1e-6
    assert times["seconds_loading"] > 0
    return {name: value for name, value in search.items() if name not in times}
