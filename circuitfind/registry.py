"""Tables of named things: the package's own, those that a program adds, and installed ones.

Code from outside comes into a table in one of two ways. A program adds an entry (`METRICS.add`),
which holds for its process; so does a file that is named as a plug-in (`circuitfind.plugins`). An
installed package offers entries as Python entry points, in its `pyproject.toml`:

    [project.entry-points."circuitfind.metrics"]
    confidence = "my_package:CONFIDENCE"

These hold for every command and every process. They are loaded when a name is asked for that is in
no other way in the table, or when the table is listed. No code is ever taken from a data file.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from circuitfind.errors import CircuitfindError, PluginWarning, quoted, shortened


@runtime_checkable
class Named(Protocol):
    """An entry of a table: anything with a name."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)

ADDED: "list[tuple[Table[Any], str]]" = []
"""What programs and plug-ins have added in this process: the table and the name."""

EXPECTED: dict[str, None] = {}
"""File names of plug-ins that results which were read were made with, and that are not loaded."""

USED: dict[str, str] = {}
"""The installed packages whose entries were loaded in this process, and their versions."""


class Table(Generic[Entry]):
    """Entries by name, in the order in which they were added.

    Args:
        what: What an entry is called: `metric`.
        kind: The type of all entries.
        error: What is raised for an entry that cannot be had.
        own: The package's own entries.
        group: The group of entry points; by default the name of an entry with an s,
            `circuitfind.metrics`.

    Attributes:
        what: What an entry is called.
        group: The group of entry points.
    """

    def __init__(
        self,
        what: str,
        kind: type[Any],
        error: type[CircuitfindError],
        own: Iterable[Entry],
        group: str | None = None,
    ) -> None:
        self.what, self._kind, self._error = what, kind, error
        self.group = group or f"circuitfind.{what.replace(' ', '_')}s"
        self._entries = {entry.name: entry for entry in own}
        self._own = frozenset(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries, those of installed packages last; warn of those that cannot be had."""
        for name, points in self._by_name().items():
            try:
                if clash := self._clash(points):
                    raise self._error(clash)
                if name not in self._entries:
                    self._load(points[0])
            except CircuitfindError as error:
                warnings.warn(str(error), PluginWarning, stacklevel=2)
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, entry: Entry) -> Entry:
        """Add an entry and return it, so that its name can be used everywhere in this process.

        Raises:
            CircuitfindError: It is not of the table's type, or there is another of its name.
        """
        if not isinstance(entry, self._kind):
            raise self._error(f"{quoted(entry)} is not a {self.what}; give one")
        if self._entries.setdefault(entry.name, entry) is not entry:
            raise self._error(
                f"there is another {self.what} named {quoted(entry.name)}; choose another name"
            )
        ADDED.append((self, entry.name))
        return entry

    def take_back(self, name: str) -> None:
        """Remove an entry that was added."""
        self._entries.pop(name, None)

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
                f"no {self.what} named {quoted(name)}; the {self.what}s are {self.names}{or_else}"
                f"{_plugins_to_give()}"
            )
        return entry

    def get(self, name: object) -> Entry | None:
        """Return the entry of a name, or None, also for what is no text.

        Raises:
            CircuitfindError: An installed package offers it and it cannot be loaded, or two do.
        """
        if not isinstance(name, str):
            return None
        if name not in self._entries and (points := self._by_name().get(name)):
            if clash := self._clash(points):
                raise self._error(clash)
            return self._load(points[0])
        return self._entries.get(name)

    @property
    def names(self) -> str:
        """All names, for messages."""
        return ", ".join(entry.name for entry in self)

    def offered(self) -> list[tuple[str, str]]:
        """Return the names that installed packages offer, each with its package."""
        return [
            (name, _package(each)) for name, points in self._by_name().items() for each in points
        ]

    def clashes(self) -> list[str]:
        """Return a line for each name of installed packages that cannot be used."""
        return list(filter(None, map(self._clash, self._by_name().values())))

    def _by_name(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def _clash(self, points: Sequence[EntryPoint]) -> str:
        """Return why a name cannot be used that packages offer; nothing if it can."""
        packages, name = " and ".join(map(_package, points)), points[0].name
        if name in self._own:
            return (
                f"{packages} offers the {self.what} {quoted(name)}, which is a built-in name; the "
                "built-in one is used: rename the other, or uninstall it"
            )
        if len(points) > 1:
            return f"{packages} both offer the {self.what} {quoted(name)}; uninstall one of them"
        return ""

    def _load(self, point: EntryPoint) -> Entry:
        package = _package(point)
        try:
            entry: Any = point.load()
        # Whatever the package's code raises.
        except Exception as error:
            raise self._error(
                f"the {self.what} {quoted(point.name)} of {package} cannot be loaded "
                f"({point.value}: {error}); update the package, or uninstall it"
            ) from error
        if not isinstance(entry, self._kind) or entry.name != point.name:
            raise self._error(
                f"{point.value} of {package} is not a {self.what} named {quoted(point.name)}; "
                "update the package, or uninstall it"
            )
        if point.dist:
            USED[package] = point.dist.version
        return self.add(entry)


def _plugins_to_give() -> str:
    if not EXPECTED:
        return ""
    return f"; the file was made with plug-ins: give --plugin {shortened(', '.join(EXPECTED))}"


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an installed package"
