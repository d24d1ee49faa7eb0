"""The behaviours that circuitfind knows, and those that a file describes."""

from pathlib import Path

from circuitfind.errors import TaskError
from circuitfind.registry import Table
from circuitfind.tasks.agreement import AGREEMENT
from circuitfind.tasks.arithmetic import ARITHMETIC
from circuitfind.tasks.base import Task
from circuitfind.tasks.capitals import CAPITAL_OF
from circuitfind.tasks.copy_colours import COPY_COLOURS
from circuitfind.tasks.custom import custom_task
from circuitfind.tasks.docstring import DOCSTRING
from circuitfind.tasks.greater_than import GREATER_THAN
from circuitfind.tasks.induction import INDUCTION
from circuitfind.tasks.ioi import IOI
from circuitfind.tasks.program import PROGRAM, WIRED
from circuitfind.tasks.pronoun import PRONOUN
from circuitfind.tasks.reading import SUFFIXES
from circuitfind.tasks.refusal import REFUSAL
from circuitfind.tasks.successor import SUCCESSOR
from circuitfind.tasks.two_operands import ADDITION, SUBTRACTION

TASKS = Table(
    "task",
    Task,
    TaskError,
    (
        IOI,
        PRONOUN,
        INDUCTION,
        GREATER_THAN,
        DOCSTRING,
        AGREEMENT,
        CAPITAL_OF,
        SUCCESSOR,
        ARITHMETIC,
        ADDITION,
        SUBTRACTION,
        COPY_COLOURS,
        REFUSAL,
        PROGRAM,
        *WIRED,
    ),
)
"""Every named task. A new one is a file and a line here."""


DEFAULT_MODEL = "gpt-4l"
"""The embedded model that is studied where neither the user nor the task names another."""


def find_task(name: str) -> Task:
    """Return a task by name, or the one that a .jsonl or .csv file describes.

    `NAME:CORRUPTION` is a named task with another corruption than its usual one.

    Raises:
        TaskError: There is no such task or corruption, or the file is not a task.
    """
    plain, _, corruption = str(name).partition(":")
    if (task := TASKS.get(plain)) is not None:
        return task if name == plain else task.corrupted_by(corruption)
    if isinstance(name, str) and (path := task_file(name)):
        return custom_task(path)
    return TASKS.find(name, or_else=", or give the path of a .jsonl or .csv file")


def model_for(task: str, model: str | None) -> str:
    """Return the model that is named, otherwise the one that the task is about or the usual one.

    Raises:
        TaskError: There is no such task.
    """
    if model is not None:
        return model
    return find_task(task).model or DEFAULT_MODEL


def task_file(name: str) -> Path | None:
    """Return the file that describes a task, or None if the task is a named one."""
    if Path(name).suffix.lower() not in SUFFIXES or TASKS.get(name.partition(":")[0]):
        return None
    return Path(name)
