"""Directories are kept apart with the locks that the file system has, or the user is warned.

No network file system is at hand here: `flock` refuses as theirs do.
"""

import errno
import fcntl
import os
import stat

import pytest

from circuitfind.errors import NoLockWarning, RunBusyError
from circuitfind.store import LOCK, at_work, held, is_held


@pytest.fixture
def without_directory_locks(monkeypatch):
    """Lock only what is open to be written, as NFS does."""
    own = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        own(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_directory_that_is_held_refuses_others_and_holds_no_file(tmp_path):
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(RunBusyError, match="another process is at work in"), held(tmp_path):
            pass
    assert not is_held(tmp_path) and not any(tmp_path.iterdir())


def test_a_file_is_locked_where_directories_cannot_be(tmp_path, without_directory_locks):
    with at_work(tmp_path / "run"):
        assert is_held(tmp_path / "run")
        busy = pytest.raises(RunBusyError, match="another process is at work in")
        with busy, at_work(tmp_path / "run"):
            pass
    assert not is_held(tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == [LOCK]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_nothing_can_be_locked_the_user_is_warned(code, tmp_path, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    said = pytest.warns(NoLockWarning, match=f"{tmp_path} has no locks .{os.strerror(code)}")
    with said, held(tmp_path):
        pass
