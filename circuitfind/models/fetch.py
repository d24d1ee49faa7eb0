"""Fetch a model from the Hugging Face hub, in a process of its own that `hub.py` watches.

It writes one JSON object a line: `{"started": true}` before it asks the hub anything, `{"listed":
true}` once the hub knows the model, `{"bytes": N}` as a file comes, `{"done": FILE}` after each
file, and at last `{"folder": PATH}` or `{"error": REASON}`. What the hub says of a model is read
here, because it may be anything of any length; files are fetched by the hub's own client into its
cache. Nothing else of the package is imported, so that it starts at once.
"""

import json
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FIRST_PATIENCE = 5.0
"""Seconds after which a hub that has sent no file yet is given up. It may be silent twice, before
it lists the files and before the first comes: with the start of both processes, under 20 seconds.
"""

PATIENCE = 8.0
"""Seconds after which a download that stands still is given up."""

_LONGEST_ANSWER = 16 << 20
"""Bytes of the longest description of a model that is read."""

_LARGEST_SMALL_FILE = 256 << 20
"""Bytes of the largest file that holds no weights; the largest tokenizers have a tenth."""

_CHUNK = 1 << 14
"""Bytes that are read of a file at a time."""

_SAY_EVERY = 0.2
"""Seconds after which a download is said to go on."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SMALL_FILES = (".json", ".txt", ".model", ".jinja", ".tiktoken")


class HubError(Exception):
    """The failure, in a sentence."""


def main() -> None:
    """Fetch the model named first; its weights too if `weights` follows."""
    logging.disable()
    warnings.simplefilter("ignore")
    name, weights = sys.argv[1], "weights" in sys.argv[2:]
    try:
        files = _listed(name)
        _say(listed=True)
        _say(folder=_download(name, files, weights=weights))
    except Exception as error:  # noqa: BLE001  (the client raises errors of several libraries)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        _say(error=lines[0].rstrip(":"))


def _say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _listed(name: str) -> list[str]:
    """Ask the hub which files a model has, and read no more than an answer can be long."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import build_hf_headers, get_session

    _say(started=True)
    url = f"{HfApi().endpoint}/api/models/{name}"
    answer = bytearray()
    with get_session().stream(
        "GET", url, headers=build_hf_headers(), timeout=PATIENCE, follow_redirects=True
    ) as response:
        if response.status_code in (401, 404):
            raise HubError("it knows no such model, or not for you")
        if response.status_code != 200:  # noqa: PLR2004
            raise HubError(f"its answer was {response.status_code} {response.reason_phrase}")
        for part in response.iter_bytes():
            answer += part
            if len(answer) > _LONGEST_ANSWER:
                raise HubError("its answer has no end")
    try:
        return [str(file["rfilename"]) for file in json.loads(answer)["siblings"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HubError("its answer is not a description of a model") from None


def _download(name: str, files: list[str], *, weights: bool) -> str:
    """Fetch a model's files, its configuration last: a cache that has it has them all."""
    if CONFIG not in files:
        raise HubError("it has no config.json for it")
    small = [file for file in files if _is_small(file)]
    for file in [*(_weights(name, files) if weights else ()), *small]:
        _fetch(name, file)
    return str(_fetch(name, CONFIG).parent)


def _is_small(file: str) -> bool:
    return "/" not in file and file.endswith(_SMALL_FILES) and not file.endswith(".index.json")


def _weights(name: str, files: list[str]) -> Iterator[str]:
    if WEIGHTS in files:
        yield WEIGHTS
    elif INDEX in files:
        yield from shards(_fetch(name, INDEX))
    else:
        raise HubError("it has no weights in safetensors format for it")


def shards(index: Path) -> list[str]:
    """Return the names of the files that an index lists.

    Raises:
        HubError: It is no such index, or lists files elsewhere.
    """
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        beside = all(Path(name).name == name and name.endswith(".safetensors") for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HubError(f"{index.name} is not an index of weights") from None
    if not beside:
        raise HubError(f"{index.name} lists files that are not beside it")
    return names


def _fetch(name: str, file: str) -> Path:
    from huggingface_hub import constants, hf_hub_download

    # The client's own 10 MB take minutes on a slow line, and look like silence.
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    most = _room() if file.endswith(".safetensors") else _LARGEST_SMALL_FILE
    path = hf_hub_download(name, file, etag_timeout=PATIENCE, tqdm_class=_meter(most))
    _say(done=file)
    return Path(path)


def _room() -> int:
    """Return how many bytes the disk of the cache can take."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _meter(most: int) -> type[Any]:
    """Return a loading bar that says what comes, and refuses more than there may be.

    Args:
        most: The largest size of the file.
    """
    from huggingface_hub.utils import tqdm

    class Meter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options["disable"], options["leave"] = not sys.stderr.isatty(), False
            self._size = options.get("total")
            self._received, self._unsaid = options.get("initial") or 0, 0
            self._said = time.monotonic()
            super().__init__(*args, **options)
            if self._size is not None and self._size > most:
                raise HubError(f"there is no room for a file of {self._size / 1e6:,.0f} MB")

        def update(self, n: float | None = 1) -> Any:
            self._received += int(n or 0)
            self._unsaid += int(n or 0)
            if time.monotonic() - self._said > _SAY_EVERY:
                _say(bytes=self._unsaid)
                self._said, self._unsaid = time.monotonic(), 0
            if self._received > (most if self._size is None else self._size):
                raise HubError("it sends more than the file is long")
            return super().update(n)

    return Meter


if __name__ == "__main__":
    main()
