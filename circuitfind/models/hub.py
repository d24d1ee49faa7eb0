"""Models of the Hugging Face hub: from its cache, or fetched into it.

What talks to the hub is a process of its own (`fetch.py`). A download may take as long as it likes
while it goes on; where next to nothing comes for some seconds, the process is ended.
"""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from circuitfind.errors import ModelError
from circuitfind.models import fetch
from circuitfind.models.guards import shortened
from circuitfind.models.sources import TOKENIZER_FILE
from circuitfind.models.zoo import ZOO

_START = 60.0
"""Seconds that the process may take before it asks the hub."""

_TRICKLE = 1 << 12
"""Smallest number of bytes in that time that counts as progress."""


def fetched(name: str, *, weights: bool) -> Path:
    """Return the directory of a model of the hub, fetching what the cache lacks.

    Args:
        name: The model's name.
        weights: Whether its weights are needed, or what reads text alone.

    Raises:
        ModelError: The hub does not know the model, or does not send it.
    """
    if (folder := _cached(name, weights=weights)) is not None:
        return folder
    words = [sys.executable, "-P", fetch.__file__, name, *["weights"] * weights]
    with subprocess.Popen(
        words,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # A terminal is shown how far a download is.
        stderr=None if sys.stderr.isatty() else subprocess.DEVNULL,
        # Telemetry asks the hub for more, of any length.
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"},
        # Ctrl-C is for us alone.
        start_new_session=True,
    ) as process:
        try:
            end = _watched(process)
        finally:
            process.kill()
    if "folder" in end:
        return Path(end["folder"])
    reason = end.get("error", "it ended without a word")
    if end.get("listed"):
        raise ModelError(
            f"the hub did not send the files of {shortened(name)} ({reason}); try again later, or "
            "give a directory"
        )
    raise ModelError(
        f"no model is named {shortened(name)}: it is not an embedded model ({', '.join(ZOO)}) or "
        f"a directory here, and the hub did not answer for it ({reason})"
    )


def _watched(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Return how a fetch ends: with what it says last, or because nothing comes any more."""
    pipe = process.stdout
    assert pipe is not None
    # Until it asks the hub, it is slow for other reasons.
    since, received, patience, listed = time.monotonic(), 0, _START, False
    while (left := since + patience - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        if not (line := pipe.readline()):
            return {"listed": listed}
        said: dict[str, Any] = json.loads(line)
        if "folder" in said or "error" in said:
            return {**said, "listed": listed}
        listed = listed or "listed" in said
        patience = fetch.PATIENCE if "bytes" in said or "done" in said else fetch.FIRST_PATIENCE
        received += said.get("bytes", 0)
        if received >= _TRICKLE or "bytes" not in said:
            since, received = time.monotonic(), 0
    return {"error": f"nothing came for {patience:.0f} seconds", "listed": listed}


def weight_files(folder: Path) -> list[Path] | None:
    """Return the files that hold a model's weights; None where one of them is missing."""
    if (folder / fetch.WEIGHTS).is_file():
        return [folder / fetch.WEIGHTS]
    if not (folder / fetch.INDEX).is_file():
        return sorted(folder.glob("*.safetensors")) or None
    try:
        files = [folder / name for name in fetch.shards(folder / fetch.INDEX)]
    except fetch.HubError:
        return None
    return files if all(file.is_file() for file in files) else None


def _cached(name: str, *, weights: bool) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, fetch.CONFIG)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    if not any(TOKENIZER_FILE.search(file.name) for file in folder.iterdir()):
        return None
    return None if weights and weight_files(folder) is None else folder
