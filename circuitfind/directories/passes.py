"""A directory whose result is made of passes: interrupted work keeps and finds them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

from circuitfind.directories.work import Asked, WorkDirectory
from circuitfind.evaluation.passes import PassLog
from circuitfind.store import reported


class PassDirectory(WorkDirectory[Asked]):
    """A directory in which circuits are measured.

    Attributes:
        passes: The file that the passes are kept in until the result is written.
    """

    passes: ClassVar[str]

    @contextmanager
    def measuring(self, facts: Mapping[str, str], tell: Callable[[str], None]) -> Iterator[PassLog]:
        """Work in the directory, and open the passes of interrupted work."""
        with self.working():
            self.begin(facts)
            log = PassLog(self.path / self.passes)
            if log.n_earlier:
                tell(
                    f"passes of an interrupted {self.kind.noun} that are not repeated: "
                    f"{log.n_earlier}"
                )
            try:
                yield log
            finally:
                log.close()

    def drop_passes(self) -> None:
        """Delete the passes of work whose result is written."""
        with reported(self.path):
            (self.path / self.passes).unlink(missing_ok=True)
