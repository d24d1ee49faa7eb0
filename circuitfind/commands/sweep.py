"""The command `sweep`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_rows
from circuitfind.commands.options import Budget, Json, limited

if TYPE_CHECKING:
    from circuitfind.sweeps.launching import Launcher
    from circuitfind.sweeps.planning import PlannedRun


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file, in TOML (docs/sweeps.md).")],
    out: Annotated[
        Path | None,
        typer.Option(help="Directory; repeating the command goes on. [default: sweeps/NAME]"),
    ] = None,
    workers: Annotated[
        int | None,
        limited("workers", "How many runs at a time.", default="what the machine allows"),
    ] = None,
    threads: Annotated[
        int | None,
        limited("threads", "Threads of each worker.", default="cores shared out evenly"),
    ] = None,
    retries: Annotated[int, limited("retries", "How often a run that crashed is tried again.")] = 2,
    ray: Annotated[
        str | None,
        typer.Option(help="Run on a Ray cluster: auto, an address, or local to start one here."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and list the runs, without running.")
    ] = False,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Run models x tasks x methods x thresholds x seeds, and gather a table and figures."""
    from circuitfind.commands.live import watching
    from circuitfind.reports.terminal import filled_columns
    from circuitfind.sweeps.gathering import gather
    from circuitfind.sweeps.plan import read_sweep
    from circuitfind.sweeps.running import run_sweep

    runs = read_sweep(file)
    path = out or Path("sweeps") / file.stem
    if dry_run:
        print_rows([{"run": run.name} for run in runs], as_json=as_json)
        return
    with interruptible(path, budget), watching() as watch:
        make_launcher = launcher(ray, workers, threads, runs)
        state = run_sweep(runs, path, make_launcher, retries=retries, watch=watch)
        rows, files = gather(runs, path)
    columns = ("run", "model_accuracy", "n_edges", "faithfulness")
    shown = [{name: row[name] for name in columns} for row in rows]
    print_rows(shown if as_json else filled_columns(shown), as_json=as_json)
    if not as_json:
        emit("".join(f"{file}\n" for file in files))
    state.require_success(path)


def launcher(
    ray: str | None, workers: int | None, threads: int | None, runs: "Sequence[PlannedRun]"
) -> "Callable[[], Launcher]":
    """Return what makes the workers of a command that runs many things."""
    from circuitfind.sweeps.launching import CrewLauncher
    from circuitfind.workers.processes import ProcessCrew, local_places

    device = runs[0].config.device.partition(":")[0]
    if ray is None:
        return lambda: CrewLauncher(ProcessCrew(local_places(workers, threads, device=device)))
    from circuitfind.workers.ray_crew import RayCrew

    return lambda: CrewLauncher(RayCrew(ray, workers, threads or 1, gpu=device == "cuda"))
