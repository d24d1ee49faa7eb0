"""Every error that a user can meet.

    CircuitfindError
    |- GraphError           an edge, component or shape that does not exist
    |- CircuitFileError     a circuit file that cannot be trusted
    |- ResultFileError      a file of results that cannot be trusted
    |- PromptError          prompts that are misaligned, too long, or say nothing
    |- TaskError            an unknown task, or one that the tokenizer cannot express
    |- MetricError          an unknown metric, or one that the prompts cannot answer
    |- ModelError           a model that cannot be loaded or decomposed
    |  `- SelfCheckError    the decomposition does not reproduce the model
    |- MethodError          an unknown method, an impossible option, a search that failed
    |- ReportError          a drawing that could not be made
    |- RunDirectoryError    a run directory that holds something else or cannot be written
    |  `- RunBusyError      another process is at work in it
    `- SweepError           a sweep file that is wrong, or a sweep of which runs failed

A message says what was given, what is possible, and what to do. The command line prints it as one
line and exits with code 2; anything else that is raised is a bug and shows its traceback.
"""


class CircuitfindError(Exception):
    """What all errors below share: the user can do something about them."""


class GraphError(CircuitfindError):
    """An edge, component or shape that does not exist."""


class CircuitFileError(CircuitfindError):
    """A circuit file that cannot be trusted."""


class ResultFileError(CircuitfindError):
    """A file of results that cannot be trusted."""


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


class MethodError(CircuitfindError):
    """An unknown method, an impossible option, or a search that failed."""


class ReportError(CircuitfindError):
    """A drawing that could not be made."""


class RunDirectoryError(CircuitfindError):
    """A run directory that holds something else or cannot be written."""


class RunBusyError(RunDirectoryError):
    """A directory in which another process is at work."""


class SweepError(CircuitfindError):
    """A sweep file that is wrong, or a sweep of which runs failed."""
