"""Names of directories that the user did not name.

A name follows the settings that differ from their defaults. So a command finds its own directory
again when it is repeated, and other settings never meet a directory that is in use.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from circuitfind.directories.config import SETTINGS, RunConfig
from circuitfind.directories.directory import RunDirectory
from circuitfind.directories.patch_config import PatchConfig
from circuitfind.directories.patch_directory import PatchDirectory
from circuitfind.directories.work import CONFIG, read_config
from circuitfind.errors import CircuitfindError
from circuitfind.methods import METHODS
from circuitfind.methods.order import settled_order
from circuitfind.methods.wanted import Wanted
from circuitfind.question import Question
from circuitfind.tasks import find_task

LONGEST = 150
"""Characters of a name; file systems allow 255 bytes, and files inside have names as well."""

_MOST_NUMBERS = 1_000


def path_of_search(config: RunConfig, wanted: Wanted) -> Path:
    """Return the directory of a search, or of a series, unless the user names one."""
    settings = {
        "threshold": None if wanted.threshold == "auto" else wanted.threshold,
        "edges": wanted.n_edges,
        "target-edges": wanted.target_edges,
        "target-faithfulness": wanted.target_faithfulness,
        **config.options,
        **config.selection,
        **_of_question(config, usual_metric=find_task(config.task).metric),
    }
    wanted_there, order = _apart_from_options(config.located()), _order(config)

    def is_free(path: Path) -> bool:
        files = (path / CONFIG, *sorted(path.glob(f"threshold-*/{CONFIG}")))
        held = next((file for file in files if file.is_file()), None)
        if held is None:
            return RunDirectory.is_fresh(path)
        with suppress(CircuitfindError, OSError):
            there = read_config(RunConfig, held.parent)
            is_same_order = order is None or _order(there) == order
            return is_same_order and _apart_from_options(there) == wanted_there
        return False

    return default_path((config.task, config.model, config.method), settings, is_free)


def path_of_patching(config: PatchConfig) -> Path:
    """Return the directory of a measurement by patching unless the user names one."""
    default = PatchConfig(config.task, config.model)
    settings = {
        "from": config.senders,
        "via": config.via,
        "to": config.receivers,
        "together": config.together,
        "norm": config.norm if config.norm != default.norm else None,
        "positions": config.positions,
        "layers": config.layers,
        "heads": config.heads,
        **_of_question(config, usual_metric=None),
    }
    sites = () if config.sites is None else (config.sites,)
    about = (config.kind, config.task, config.model, config.mode, *sites)

    return default_path(about, settings, lambda path: PatchDirectory.can_take(path, config))


def _of_question(config: Question, usual_metric: str | None) -> dict[str, Any]:
    """Return what differs from the defaults in a question."""
    default = Question(config.task, config.model)
    return {
        "metric": config.metric if config.metric != usual_metric else None,
        "ablation": config.ablation if config.ablation != default.ablation else None,
        "prompts": config.n_prompts if config.n_prompts != default.n_prompts else None,
        "seed": config.seed if config.seed != default.seed else None,
        "system": "none" if config.system == "" else config.system,
        "dtype": config.dtype,
        "merge-qkv": not config.split_qkv,
        "split-embedding": config.split_embedding,
        "places": config.places,
        "crossing": config.crossing,
        "neurons": config.neurons,
        "latents": config.latents,
        "shortlist": config.shortlist if config.shortlist != default.shortlist else None,
        "ranked-by": config.ranked_by if config.ranked_by != default.ranked_by else None,
    }


def _order(config: RunConfig) -> str | list[str] | None:
    """Return an order of edges as a run's settings hold it; None where none is given."""
    name = METHODS.find(config.method).option_for("order")
    given = None if name is None else config.options.get(name)
    if given is None:
        return None
    order = settled_order(given)
    return order if isinstance(order, str) else list(order)


def _apart_from_options(config: RunConfig) -> dict[str, Any]:
    return {name: value for name, value in config.identity.items() if name not in SETTINGS}


def default_path(
    about: Sequence[str],
    settings: Mapping[str, Any],
    is_free: Callable[[Path], bool] = lambda path: True,
) -> Path:
    """Return the directory of a result unless the user names one.

    Args:
        about: What it is about: names, or paths of which only the last part counts.
        settings: Settings that differ from their defaults; None, False and empty ones are left
            out.
        is_free: Whether a directory of this name can be used: it does not exist, or holds the very
            same thing. If not, a number is added.
    """
    return _first_free(Path("runs"), _words([*map(_short, about), *_said(settings)]), is_free)


def path_beside(
    path: Path,
    what: str,
    settings: Mapping[str, Any],
    is_free: Callable[[Path], bool] = lambda path: True,
) -> Path:
    """Return the directory beside a run or a file for a result made from it.

    Args:
        path: The run directory, or the file.
        what: What is made of it.
        settings: As for `default_path`.
        is_free: As for `default_path`.
    """
    place = path if path.name not in ("", "..") else path.resolve()
    name = place.name if path.is_dir() else place.stem
    return _first_free(place.parent, f"{name}-{_words([what, *_said(settings)])}", is_free)


def _first_free(folder: Path, name: str, is_free: Callable[[Path], bool]) -> Path:
    path = folder / name.encode()[:LONGEST].decode(errors="ignore").rstrip("-.")
    numbered = (path.with_name(f"{path.name}-{number}") for number in range(2, _MOST_NUMBERS))
    return next((each for each in (path, *numbered) if is_free(each)), path)


def _words(parts: Sequence[str]) -> str:
    return "-".join(re.sub(r"[^\w.+-]+", "-", part).strip("-") for part in parts).replace("_", "-")


def _said(settings: Mapping[str, Any]) -> list[str]:
    return [
        name if value is True else f"{name}-{_text(value)}"
        for name, value in settings.items()
        if value is not None and value is not False and value != () and value != {}
    ]


def _short(name: str) -> str:
    path = Path(name).resolve() if name in (".", "..") else Path(name)
    return path.stem if path.suffix.lower() in (".json", ".jsonl", ".csv") else path.name


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-".join(f"{name}-{_text(each)}" for name, each in value.items())
    return "-".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
