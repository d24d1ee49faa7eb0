"""From a directory to its dictionaries, whichever format it has."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from circuitfind.dictionaries.base import DictionaryFormat
from circuitfind.dictionaries.circuit_tracer import CIRCUIT_TRACER
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.gemma_scope import GEMMA_SCOPE
from circuitfind.dictionaries.gemma_scope_2 import GEMMA_SCOPE_2
from circuitfind.dictionaries.saelens import SAELENS
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.sparsify import SPARSIFY
from circuitfind.errors import DictionaryError, quoted, shortened
from circuitfind.files import path_of
from circuitfind.registry import Table

FORMATS = Table(
    "dictionary format",
    DictionaryFormat,
    DictionaryError,
    (SAELENS, CIRCUIT_TRACER, GEMMA_SCOPE, GEMMA_SCOPE_2, SPARSIFY),
)
"""Every format. A new one is a file and a line here."""

_LEVELS = 3
"""How many levels of directories are searched."""

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def load_dictionaries(path: Path | str) -> tuple[Dictionary, ...]:
    """Read the dictionaries of a directory.

    Args:
        path: A directory in one of the `FORMATS`, or one that holds such directories, up to
            three levels below.

    Returns:
        The dictionaries, by layer.

    Raises:
        DictionaryError: There are none, or a file cannot be trusted.
    """
    folder = path_of(path)
    found: dict[Site, Dictionary] = {}
    for inside, known in _folders(folder):
        for each in _read(inside, known):
            other = found.setdefault(each.site, each)
            if other is not each:
                raise DictionaryError(
                    f"{quoted(str(folder))} holds two dictionaries of {each.site}: "
                    f"{quoted(other.name)} and {quoted(each.name)}; give a directory with one"
                )
    return tuple(sorted(found.values(), key=lambda each: each.site.layer))


def _folders(folder: Path) -> Sequence[tuple[Path, DictionaryFormat]]:
    """Return the directory with its format, or all of its sub-directories that have one."""
    try:
        if found := _format_of(folder):
            return [(folder, found)]
        several = list(_inside(folder, _LEVELS))
    except OSError as error:
        raise DictionaryError(
            f"cannot read the dictionaries of {quoted(str(folder))}: {error.strerror}; give a "
            "directory that holds some"
        ) from None
    if several:
        return several
    raise DictionaryError(
        f"{quoted(str(folder))} holds no dictionary{_pickles_in(folder)}; a directory holds one if "
        f"it has the files of {', '.join(each.summary for each in FORMATS)}"
    )


def _inside(folder: Path, levels: int) -> Iterator[tuple[Path, DictionaryFormat]]:
    """Yield the directories below a directory that have a format, in the order of their names."""
    for item in sorted(folder.iterdir()):
        if not item.is_dir() or item.name.startswith("."):
            continue
        if known := _format_of(item):
            yield item, known
        elif levels > 1:
            yield from _inside(item, levels - 1)


def _format_of(folder: Path) -> DictionaryFormat | None:
    """Return the format of a directory, or None if no file in it tells one.

    Raises:
        OSError: The directory cannot be read.
    """
    names = [item for item in folder.iterdir() if item.is_file()]
    found = [each for each in FORMATS if any(item.match(each.mark) for item in names)]
    return found[0] if found else None


def _pickles_in(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir() if item.suffix.lower() in _PICKLES)
    if not names:
        return ""
    return (
        f" that can be read: {quoted(names[0])} is a pickle, which can run code when it is read; "
        "load it once where you trust it, and save its tensors as safetensors"
    )


def _read(folder: Path, known: DictionaryFormat) -> tuple[Dictionary, ...]:
    try:
        return known.read(folder)
    except OSError as error:
        reason = error.strerror or shortened(str(error))
        named = f" ({quoted(Path(error.filename).name)})" if error.filename else ""
        raise DictionaryError(
            f"cannot read the {known.name} dictionary {quoted(str(folder))}: {reason}{named}; give "
            "a directory with all of its files"
        ) from None
    except (ValueError, SafetensorError, RecursionError, MemoryError) as error:
        raise DictionaryError(
            f"{quoted(str(folder))} cannot be read as a {known.name} dictionary: {_reason(error)}"
        ) from None


def _reason(error: Exception) -> str:
    """Return what an error says, cut short where others wrote it."""
    said = str(error) if isinstance(error, ValueError) else shortened(str(error))
    return said or type(error).__name__
