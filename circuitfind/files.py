"""Read and write whole files: never wait for one that never ends, never leave half of one.

Every file of ours and of others that is read as a whole is read here. A named pipe, a device or a
directory is refused as what it is, and so is a file larger than any that circuitfind writes. Every
file that is written as a whole is written here: under a temporary name, then renamed. What fails is
an `OSError`, so that each caller says in its own words which file it could not use and what to do.
"""

import errno
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from circuitfind.errors import require_kind

MOST_BYTES = 1 << 28
"""The largest file that is read as a whole: 256 MiB."""

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "it is a directory, not a file"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a named pipe, not a file"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket, not a file"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device, not a file"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device, not a file"),
)


def path_of(given: object) -> Path:
    """Return the path that a user gave, as text or as a path.

    Raises:
        MethodError: It is neither.
    """
    require_kind(given, (str, os.PathLike), "a path; give text or a `Path`")
    return Path(given)  # type: ignore[arg-type]


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        most: The largest size that is read, in bytes.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger.
    """
    # Opened without waiting: a named pipe without a writer would block for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _require_regular(os.fstat(descriptor), path, most)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """Return a short hash of the content of a file."""
    return hashlib.sha256(read_bytes(path)).hexdigest()[:16]


def _require_regular(found: os.stat_result, path: Path, most: int) -> None:
    for is_kind, number, complaint in _KINDS:
        if is_kind(found.st_mode):
            raise OSError(number, complaint, str(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, too_large(found.st_size, most), str(path))


def read_text(path: Path, *, encoding: str = "utf-8", most: int = MOST_BYTES) -> str:
    """Return the content of a text file.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger than `most` bytes.
        UnicodeDecodeError: It is not text in this encoding.
    """
    return read_bytes(path, most=most).decode(encoding)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one step: whoever reads it finds the old content or the new.

    A link keeps pointing to the file, which is replaced. A device or a named pipe is written to.

    Raises:
        OSError: It cannot be written; what was there before is still there.
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb", buffering=0) as file:
            write_all(file, data)
        return
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            write_all(file, data)
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_all(file: BinaryIO, content: bytes) -> None:
    """Write all of some bytes to an unbuffered file, which may take only a part at a time.

    Raises:
        OSError: They do not fit on the disk, for instance.
    """
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def too_large(size: int, most: int) -> str:
    """Return what is said of a file that is too large."""
    return f"it has {size:,} bytes and at most {most:,} are read"
