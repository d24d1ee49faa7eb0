"""Read files that others wrote: never waiting for one that never ends, never more than fits.

Every file of ours and of others that is read as a whole is read here. A named pipe, a device or a
directory is refused as what it is, and so is a file larger than any that circuitfind writes. Both
are `OSError`s, so that each caller says in its own words which file it could not use and what
to do.
"""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 28
"""The largest file that is read as a whole: 256 MiB."""

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, "it is a directory, not a file"),
    (stat.S_ISFIFO, errno.EINVAL, "it is a named pipe, not a file"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket, not a file"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device, not a file"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device, not a file"),
)


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


def too_large(size: int, most: int) -> str:
    """Return what is said of a file that is too large."""
    return f"it has {size:,} bytes and at most {most:,} are read"
