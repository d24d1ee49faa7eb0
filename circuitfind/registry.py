"""Tables of named things: the package's own, those that a program adds, and installed ones.

Code from outside comes into a table in one of two ways. A program adds an entry (`METRICS.add`),
which holds for its process. An installed package offers entries as Python entry points, in its
`pyproject.toml`:

    [project.entry-points."circuitfind.metrics"]
    confidence = "my_package:CONFIDENCE"

These hold for every command and every process. They are loaded when a name is asked for that is in
no other way in the table, or when the table is listed. No code is ever taken from a data file.
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from circuitfind.errors import CircuitfindError, quoted


@runtime_checkable
class Named(Protocol):
    """An entry of a table: anything with a name."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Table(Generic[Entry]):
    """Entries by name, in the order in which they were added.

    Args:
        what: What an entry is called: `metric`. The group of entry points is that with an s,
            `circuitfind.metrics`.
        kind: The type of all entries.
        error: What is raised for an entry that cannot be had.
        own: The package's own entries.
    """

    def __init__(
        self, what: str, kind: type[Any], error: type[CircuitfindError], own: Iterable[Entry]
    ) -> None:
        self._what, self._kind, self._error = what, kind, error
        self._entries = {entry.name: entry for entry in own}

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries, those of installed packages last."""
        for point in self._installed():
            if point.name not in self._entries:
                self._load(point)
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, entry: Entry) -> Entry:
        """Add an entry and return it, so that its name can be used everywhere in this process.

        Raises:
            CircuitfindError: It is not of the table's type, or there is another of its name.
        """
        if not isinstance(entry, self._kind):
            raise self._error(f"{quoted(entry)} is not a {self._what}; give one")
        if self._entries.setdefault(entry.name, entry) is not entry:
            raise self._error(
                f"there is another {self._what} named {quoted(entry.name)}; choose another name"
            )
        return entry

    def find(self, name: str, *, or_else: str = "") -> Entry:
        """Return the entry of a name.

        Args:
            name: The name.
            or_else: What else a user may give, for the message.

        Raises:
            CircuitfindError: There is none; the message lists all names.
        """
        if (entry := self.get(name)) is None:
            raise self._error(
                f"no {self._what} named {quoted(name)}; the {self._what}s are {self.names}{or_else}"
            )
        return entry

    def get(self, name: object) -> Entry | None:
        """Return the entry of a name, or None, also for what is no text.

        Raises:
            CircuitfindError: An installed package offers it and it cannot be loaded.
        """
        if not isinstance(name, str):
            return None
        if name not in self._entries:
            for point in self._installed():
                if point.name == name:
                    return self._load(point)
        return self._entries.get(name)

    @property
    def names(self) -> str:
        """All names, for messages."""
        return ", ".join(entry.name for entry in self)

    def _installed(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=f"circuitfind.{self._what.replace(' ', '_')}s"))

    def _load(self, point: EntryPoint) -> Entry:
        package = point.dist.name if point.dist else "an installed package"
        try:
            entry: Any = point.load()
        # Whatever the package's code raises.
        except Exception as error:
            raise self._error(
                f"the {self._what} {quoted(point.name)} of {package} cannot be loaded "
                f"({point.value}: {error}); update the package, or uninstall it"
            ) from error
        if not isinstance(entry, self._kind) or entry.name != point.name:
            raise self._error(
                f"{point.value} of {package} is not a {self._what} named {quoted(point.name)}; "
                "update the package, or uninstall it"
            )
        return self.add(entry)
