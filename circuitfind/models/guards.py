"""Turn what the code of other libraries raises into one line, and keep what they print away."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitfind.errors import CircuitfindError, ModelError


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep loading bars and reports of transformers off the terminal, and leave it as it was."""
    import transformers

    settings = transformers.utils.logging
    shown, level = settings.is_progress_bar_enabled(), settings.get_verbosity()
    settings.disable_progress_bar()
    settings.set_verbosity(settings.CRITICAL)
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if shown:
            settings.enable_progress_bar()


@contextmanager
def refusing(complaint: str) -> Iterator[None]:
    """Turn whatever the code of a model raises, which may be anything, into one line."""
    try:
        yield
    except CircuitfindError:
        raise
    except Exception as error:  # noqa: BLE001  (models of others raise errors of any kind)
        raise ModelError(f"{complaint}: {reason_of(error)}") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line.

    Raises:
        ModelError: The path cannot be read, with the reason.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or reason_of(error)
        raise ModelError(
            f"cannot read the model {shortened(str(path))}: {reason}; change its permissions, or "
            "give another path"
        ) from None


def reason_of(error: BaseException) -> str:
    """Return the first sentence of what an error says; lists that it introduces are joined."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    end = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:end]).removesuffix(":")


_MOST_SHOWN = 100


def shortened(name: str) -> str:
    """Quote what a user gave, with its middle left out where it is long."""
    half = _MOST_SHOWN // 2
    return repr(name if len(name) <= _MOST_SHOWN else f"{name[:half]}...{name[-half:]}")
