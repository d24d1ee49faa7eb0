"""Every error that a user can meet.

    CircuitfindError
    |- LimitError           a number outside its range
    |- GraphError           an edge, component or shape that does not exist
    |- CircuitFileError     a circuit file that cannot be trusted
    |- ResultFileError      a file of results that cannot be trusted
    |- NewerFileError       a file that a newer version has written
    |- PromptError          prompts that are misaligned, too long, or say nothing
    |- TaskError            an unknown task, or one that the tokenizer cannot express
    |- MetricError          an unknown metric, or one that the prompts cannot answer
    |- ModelError           a model that cannot be loaded or decomposed
    |  `- SelfCheckError    the decomposition does not reproduce the model
    |- DictionaryError      a transcoder or SAE that cannot be read, or does not fit the model
    |- MethodError          an unknown method, an impossible option, a search that failed
    |- ReportError          a drawing that could not be made
    |- RunDirectoryError    a run directory that holds something else or cannot be written
    |  `- RunBusyError      another process is at work in it
    |- WorkerError          workers that cannot be had, be given the question, or stay alive
    `- SweepError           a sweep file that is wrong, or a sweep of which runs failed

A message says what was given, what is possible, and what to do. The command line prints it as one
line and exits with code 2; anything else that is raised is a bug and shows its traceback.
"""

from typing import Any


class CircuitfindError(Exception):
    """Base class of all errors that the user can act on."""


class LimitError(CircuitfindError):
    """A number outside its range."""


class GraphError(CircuitfindError):
    """An edge, component or shape that does not exist."""


class CircuitFileError(CircuitfindError):
    """A circuit file that cannot be trusted."""


class ResultFileError(CircuitfindError):
    """A file of results that cannot be trusted."""


class NewerFileError(CircuitfindError):
    """A file that a newer version has written, in a format that this one does not know."""


class PromptError(CircuitfindError):
    """Prompts that are misaligned, too long, or whose corruption changes nothing."""


class TaskError(CircuitfindError):
    """An unknown task, or one that the tokenizer cannot express."""


class MetricError(CircuitfindError):
    """An unknown metric, or one that the prompts cannot answer."""


class ModelError(CircuitfindError):
    """A model that cannot be loaded or decomposed."""


class SelfCheckError(ModelError):
    """A decomposition that does not reproduce the model; carries the measured difference."""


class DictionaryError(CircuitfindError):
    """A transcoder or SAE that cannot be read, or does not fit the model."""


class MethodError(CircuitfindError):
    """An unknown method, an impossible option, or a search that failed."""


class ReportError(CircuitfindError):
    """A drawing that could not be made."""


class RunDirectoryError(CircuitfindError):
    """A run directory that holds something else or cannot be written."""


class RunBusyError(RunDirectoryError):
    """A directory in which another process is at work."""


class WorkerError(CircuitfindError):
    """Workers that cannot be had, cannot be given the question, or do not stay alive."""


class PluginError(CircuitfindError):
    """A plug-in that cannot be loaded."""


class SweepError(CircuitfindError):
    """A sweep file that is wrong, or a sweep of which runs failed."""


class PublicationError(CircuitfindError):
    """A published folder that cannot be trusted, or a run that cannot be published."""


class PluginWarning(UserWarning):
    """An installed package offers what cannot be had."""


class NoLockWarning(UserWarning):
    """A directory in which nothing keeps other processes out."""


MOST_QUOTED = 200
"""Largest number of characters of a user's or a file's text that a message repeats."""


def require_kind(given: object, kind: Any, wanted: str) -> None:
    """Refuse what is of another type.

    Args:
        given: What a user gave.
        kind: The type, or several.
        wanted: What it is not, and what to give: `a circuit; give what ...`.

    Raises:
        MethodError: It is of another type.
    """
    if not isinstance(given, kind):
        raise MethodError(f"{quoted(given)} is not {wanted}")


def quoted(value: object, most: int = MOST_QUOTED) -> str:
    """Return a value as messages show it, cut off after some characters."""
    try:
        # The first part is enough of a text, and a long one takes long to quote.
        text = repr(value[:most] if isinstance(value, str | bytes) else value)
    except ValueError:
        # Python refuses to write out whole numbers of thousands of digits.
        return "a number of thousands of digits"
    cut = isinstance(value, str | bytes) and len(value) > most
    return f"{text[: most - 3]}..." if cut or len(text) > most else text


def shortened(text: str) -> str:
    """Return what another program said of a file, cut like a quotation."""
    flat = " ".join(text[: 10 * MOST_QUOTED].split())
    return f"{flat[: MOST_QUOTED - 3]}..." if len(flat) > MOST_QUOTED else flat
