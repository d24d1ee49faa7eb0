"""Reading a file ends, whatever stands under its name."""

import os
import re
import socket
from pathlib import Path

import pytest

import circuitfind
from circuitfind.files import read_bytes, read_text


def test_a_file_is_read_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes(b"caf\xc3\xa9\r\n")
    assert read_bytes(tmp_path / "file") == b"caf\xc3\xa9\r\n"
    assert read_text(tmp_path / "file") == "café\r\n"


def test_a_named_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a named pipe, not a file"):
        read_bytes(tmp_path / "pipe")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(OSError, match="it is a directory, not a file"):
        read_bytes(tmp_path)


def test_a_device_without_end_is_refused():
    with pytest.raises(OSError, match="it is a device, not a file"):
        read_bytes(Path("/dev/zero"))


def test_a_socket_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(OSError):
            read_bytes(tmp_path / "s")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(OSError, match="it has 1,000,000,000,000 bytes and at most 268,"):
        read_bytes(tmp_path / "large")


def test_every_file_of_the_package_is_read_and_written_here():
    package = Path(circuitfind.__file__).parent
    others = re.compile(r"\.(read|write)_(text|bytes)\(|\b(load|save)_file\b|torch\.(load|save)\(")
    found = {
        f"{file.relative_to(package)}: {match[0]}"
        for file in package.rglob("*.py")
        if file.name != "files.py"
        for match in others.finditer(file.read_text(encoding="utf-8"))
    }
    # A part of the package, an index that is fetched by a process of its own, and tensors in bytes
    # that were read here, without code.
    assert found == {
        "reports/page/html.py: .read_text(",
        "models/fetch.py: .read_bytes(",
        "formats/submission.py: torch.load(",
    }
