"""Fetch a model's files from the Hugging Face hub into its cache, within stated limits.

What the hub says of a model is read here, because it may be anything of any length. Files are
fetched by the hub's own client in a thread that is watched: a download may take as long as it
likes while it runs, and is given up once it stands still.
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from circuitfind.errors import ModelError
from circuitfind.models.guards import reason_of, shortened
from circuitfind.models.sources import TOKENIZER_FILE
from circuitfind.models.zoo import ZOO
from circuitfind.stored import parse_json

_PATIENCE = 10.0
"""Seconds after which a hub that sends next to nothing is given up."""

_TRICKLE = 1 << 12
"""How many bytes in that time are next to nothing."""

_LONGEST_ANSWER = 16 << 20
"""Bytes of the longest description of a model that is read."""

_LARGEST_SMALL_FILE = 256 << 20
"""Bytes of the largest file that holds no weights; the largest tokenizers have a tenth."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
_SMALL_FILES = (".json", ".txt", ".model", ".jinja", ".tiktoken")

Result = TypeVar("Result")


class _HubError(Exception):
    """What went wrong, in a sentence without its subject."""


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
    watch = _Watch()
    try:
        files = watch.over(lambda: _listed(name))
    except _HubError as error:
        raise ModelError(
            f"no model is named {shortened(name)}: it is no embedded model ({', '.join(ZOO)}), no "
            f"directory here, and the hub did not answer for it ({error})"
        ) from None
    try:
        return watch.over(lambda: _download(name, files, watch, weights=weights))
    except _HubError as error:
        raise ModelError(
            f"the hub did not send the files of {shortened(name)} ({error}); try again later, or "
            "give a directory"
        ) from None


def weight_files(folder: Path) -> list[Path] | None:
    """Return the files that hold a model's weights; None where one of them is missing."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        return sorted(folder.glob("*.safetensors")) or None
    files = [folder / name for name in _shards(folder / _INDEX)]
    return files if all(file.is_file() for file in files) else None


def _shards(index: Path) -> list[str]:
    """Return the names of files that an index lists."""
    try:
        names = sorted(set(parse_json(index.read_bytes())["weight_map"].values()))
        if not all(Path(name).name == name and name.endswith(".safetensors") for name in names):
            raise ValueError("it lists a file elsewhere")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is damaged ({reason_of(error)}); fetch it again") from None
    return names


def _cached(name: str, *, weights: bool) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, _CONFIG)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    complete = any(TOKENIZER_FILE.search(file.name) for file in folder.iterdir())
    return folder if complete and not (weights and weight_files(folder) is None) else None


def _listed(name: str) -> list[str]:
    """Ask the hub which files a model has, and read no more than an answer can be long."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import build_hf_headers, get_session

    url = f"{HfApi().endpoint}/api/models/{name}"
    answer = bytearray()
    with get_session().stream(
        "GET", url, headers=build_hf_headers(), timeout=_PATIENCE, follow_redirects=True
    ) as response:
        if response.status_code in (401, 404):
            raise _HubError("it knows no such model, or not for you")
        if response.status_code != 200:  # noqa: PLR2004
            raise _HubError(f"its answer was {response.status_code} {response.reason_phrase}")
        for part in response.iter_bytes():
            answer += part
            if len(answer) > _LONGEST_ANSWER:
                raise _HubError("its answer has no end")
    try:
        return [str(file["rfilename"]) for file in parse_json(bytes(answer))["siblings"]]
    except (ValueError, KeyError, TypeError):
        raise _HubError("its answer is no description of a model") from None


def _download(name: str, files: list[str], watch: "_Watch", *, weights: bool) -> Path:
    """Fetch a model's files, its configuration last: a cache that has it has them all."""

    def fetch(file: str) -> Path:
        from huggingface_hub import hf_hub_download

        most = None if file.endswith(".safetensors") else _LARGEST_SMALL_FILE
        path = hf_hub_download(name, file, etag_timeout=_PATIENCE, tqdm_class=_meter(watch, most))
        watch.moved()
        return Path(path)

    if _CONFIG not in files:
        raise _HubError("it has no config.json for it")
    if weights:
        if _WEIGHTS not in files and _INDEX not in files:
            raise _HubError("it has no weights in safetensors format for it")
        for file in [_WEIGHTS] if _WEIGHTS in files else _shards(fetch(_INDEX)):
            fetch(file)
    for file in files:
        if file.endswith(_SMALL_FILES) and "/" not in file and not file.endswith(".index.json"):
            fetch(file)
    return fetch(_CONFIG).parent


class _Watch:
    """Watches work that talks to the hub, and gives it up where nothing moves any more."""

    def __init__(self) -> None:
        self._since, self._bytes = time.monotonic(), 0
        self._limit: str | None = None

    def moved(self) -> None:
        """Note that a step is done."""
        self._since, self._bytes = time.monotonic(), 0

    def received(self, n_bytes: int) -> None:
        """Note that bytes of a file came; a trickle counts for nothing."""
        self._bytes += n_bytes
        if self._bytes >= _TRICKLE:
            self.moved()

    def refuse(self, reason: str) -> None:
        """Give the work up, from within."""
        self._limit = reason
        raise _HubError(reason)

    def over(self, work: Callable[[], Result]) -> Result:
        """Run some work in a thread of its own and return its result.

        Raises:
            _HubError: The work failed, or nothing moved for too long. The thread is left behind
                then: nothing can stop it, and nobody hears of it any more.
        """
        self.moved()
        results: list[Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001  (it is raised again below)
                errors.append(error)

        thread = Thread(target=run, daemon=True, name="circuitfind-hub")
        _silence(thread)
        thread.start()
        while thread.is_alive() and self._limit is None:
            thread.join(0.05)
            if time.monotonic() - self._since > _PATIENCE and not (results or errors):
                raise _HubError(f"nothing came for {_PATIENCE:.0f} seconds")
        if self._limit is not None:
            raise _HubError(self._limit)
        if errors:
            raise _known(errors[0])
        return results[0]


def _known(error: BaseException) -> BaseException:
    """Return our own errors as they are, and those of the client as a sentence."""
    return error if isinstance(error, _HubError | ModelError) else _HubError(reason_of(error))


def _silence(thread: Thread) -> None:
    """Keep what the client logs in a thread, now or later, off the user's terminal."""
    for name in ("", "huggingface_hub", "httpx", "filelock"):
        logger = logging.getLogger(name)
        for target in (logger, *logger.handlers):
            target.addFilter(lambda record: record.thread != thread.ident)


def _meter(watch: _Watch, most: int | None) -> type[Any]:
    """Return a loading bar that tells the watch what comes, and refuses more than there may be.

    Args:
        watch: What to tell.
        most: The largest size of the file; of weights, what there is room for.
    """
    from huggingface_hub.utils import tqdm

    class Meter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options["disable"] = not sys.stderr.isatty()
            options.pop("name", None)
            self._size, self._received = options.get("total"), options.get("initial") or 0
            super().__init__(*args, **{**options, "leave": False})
            room = _room() if most is None else most
            if self._size is not None and self._size - self._received > room:
                watch.refuse(f"a file of {self._size / 1e6:.0f} MB is more than there is room for")

        def update(self, n: float | None = 1) -> Any:
            self._received += int(n or 0)
            watch.received(int(n or 0))
            if self._received > (_LARGEST_SMALL_FILE if self._size is None else self._size):
                watch.refuse("it sends more than the file is long")
            return super().update(n)

    return Meter


def _room() -> int:
    """Return how many bytes the disk of the cache can take."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    return shutil.disk_usage(existing).free
