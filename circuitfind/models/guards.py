"""Around the code of others: what it raises becomes one line, and its loading bar stays away."""

from collections.abc import Iterator
from contextlib import contextmanager

from circuitfind.errors import CircuitfindError, ModelError


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the loading bar of transformers off the terminal, and leave it as it was."""
    import transformers

    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


@contextmanager
def refusing(complaint: str) -> Iterator[None]:
    """Turn whatever the code of a model raises, which may be anything, into one line."""
    try:
        yield
    except CircuitfindError:
        raise
    except Exception as error:  # noqa: BLE001  (models of others raise errors of any kind)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{complaint}: {reason}") from None
