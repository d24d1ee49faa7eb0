"""The command line: it parses and prints, and leaves the work to the packages below.

Results go to stdout, everything else to stderr. An error that the user can act on is one line and
exit code 2. Heavy imports sit inside the commands, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitfind.errors import CircuitfindError

if TYPE_CHECKING:
    from circuitfind.methods.base import Progress
    from circuitfind.runs.discover import RunResult

app = typer.Typer(
    name="circuitfind",
    help="Find, check and draw the circuits of transformer language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ModelOption = Annotated[
    str, typer.Option(help="Embedded model, model directory, compiled model's .json, or hub name.")
]
Seed = Annotated[int, typer.Option(help="Fixes the prompts and every random choice.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, float64 or bfloat16; by default that of the weights.")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")]

DEFAULT_MODEL = "ioi-small"


@app.command()
def discover(
    task: Annotated[str, typer.Argument(help="A task (`circuitfind tasks`), or a .jsonl or .csv.")],
    model: ModelOption = DEFAULT_MODEL,
    method: Annotated[str, typer.Option(help="How to search (`circuitfind methods`).")] = "acdc",
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Rise of the loss from which on an edge is kept, in the metric's unit; several, "
            "separated by commas, are searched one after the other; `auto` takes the metric's "
            "noise. [default: auto for acdc]"
        ),
    ] = None,
    edges: Annotated[int | None, typer.Option(help="Keep this many edges (method exact).")] = None,
    target_edges: Annotated[
        int | None, typer.Option(help="Search for the threshold that keeps up to this many edges.")
    ] = None,
    target_faithfulness: Annotated[
        float | None,
        typer.Option(help="Search for the threshold whose small circuit is this faithful."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What to measure; by default the task's own metric.")
    ] = None,
    ablation: Annotated[
        str,
        typer.Option(help="What a cut edge carries: resample, zero, mean or mean-over-positions."),
    ] = "resample",
    prompts: Annotated[int, typer.Option(help="How many pairs of prompts.")] = 64,
    seed: Seed = 0,
    order: Annotated[
        str, typer.Option(help="Order of a layer's heads: backward-index, forward-index, random.")
    ] = "backward-index",
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Compare the size of the effect, not its value.")
    ] = False,
    group_qkv: Annotated[
        bool, typer.Option("--group-qkv", help="First try to cut all edges into a port at once.")
    ] = False,
    keep_dead_ends: Annotated[
        bool, typer.Option("--keep-dead-ends", help="Do not remove edges that lead nowhere.")
    ] = False,
    merge_qkv: Annotated[
        bool, typer.Option("--merge-qkv", help="Give each head one input instead of q, k and v.")
    ] = False,
    split_embedding: Annotated[
        bool, typer.Option("--split-embedding", help="Make token and position separate writers.")
    ] = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; an interrupted run resumes. [default: runs/NAME]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the circuit that MODEL uses for TASK: search, check, measure and draw it."""
    from circuitfind.runs.config import RunConfig
    from circuitfind.runs.series import Wanted, run_wanted
    from circuitfind.tasks import find_task

    options: dict[str, Any] = {}
    if method == "acdc":
        options = {"order": order, "absolute": absolute, "group_qkv": group_qkv, "seed": seed}
        options["prune"] = not keep_dead_ends
    config = RunConfig(
        task=task,
        model=model,
        method=method,
        options=options,
        metric=metric or find_task(task).metric,
        ablation=ablation,
        n_prompts=prompts,
        seed=seed,
        dtype=dtype,
        device=device,
        split_qkv=not merge_qkv,
        split_embedding=split_embedding,
    )
    path = out or Path("runs") / "-".join((Path(task).stem, Path(model).name, method))
    wanted = Wanted(threshold, edges, target_edges, target_faithfulness)
    with _progress_bar() as on_progress, _interruptible(path):
        results = run_wanted(path, config, wanted, on_progress=on_progress, tell=_tell)
    _print_results(results, as_json=as_json)


@app.command()
def draw(
    circuit: Annotated[Path, typer.Argument(help="A run directory or a circuit file.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write: .svg, .png, .dot or .pdf. [default: beside the circuit]"),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another circuit: draw what is shared and what is not.")
    ] = None,
) -> None:
    """Draw a circuit, or the difference of two."""
    from circuitfind.reports.diagram import draw_circuit, draw_difference
    from circuitfind.runs.directory import circuit_file, load_circuit_of

    found = load_circuit_of(circuit)
    if against is None:
        diagram = draw_circuit(found, caption=[f"{found.n_edges} edges"])
    else:
        names = (circuit.stem, against.stem)
        diagram = draw_difference(found, load_circuit_of(against, found.graph), names=names)
    name = "diagram.svg" if against is None else f"difference-{against.stem}.svg"
    typer.echo(diagram.save(out or circuit_file(circuit).with_name(name)))


@app.command()
def tasks(
    task: Annotated[
        str | None, typer.Argument(help="Show three pairs of this task's prompts.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """List the tasks, or show what one looks like to a model."""
    from circuitfind.tasks import TASKS, find_task

    if task is None:
        rows = [
            {"task": t.name, "summary": t.summary, "metric": t.metric, "source": t.source}
            for t in TASKS
        ]
    else:
        from circuitfind.models.loading import load_model
        from circuitfind.tasks.show import shown_pairs

        rows = shown_pairs(find_task(task), load_model(model).vocabulary, seed=seed)
    _print_rows(rows, as_json=as_json)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Show this model's card.")] = None,
    as_json: Json = False,
) -> None:
    """List the models that ship with the package, or show the card of one."""
    from circuitfind.models.zoo import ZOO, model_card

    if model is None:
        rows = [{"model": name, "summary": summary} for name, summary in ZOO.items()]
    else:
        card = model_card(model)
        rows = [{"": name, "value": _plain(value)} for name, value in card.items()]
        if as_json:
            rows = [card]
    _print_rows(rows, as_json=as_json)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the search methods and their options."""
    from dataclasses import fields

    from circuitfind.methods import METHODS

    rows = [
        {
            "method": method.name,
            "summary": method.summary,
            "options": ", ".join(option.name for option in fields(method.options)),
            "source": method.paper,
        }
        for method in METHODS
    ]
    _print_rows(rows, as_json=as_json)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Embedded model, directory, .json, or hub name.")],
    dtype: Dtype = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show a model's sizes, its graph, and how exactly its parts reproduce it."""
    from circuitfind.models.loading import load_model
    from circuitfind.runs.inspection import inspected

    facts = inspected(load_model(model, dtype=dtype, device=device))
    if as_json:
        _print_rows([facts], as_json=True)
    else:
        _print_rows([{"": name, "value": _plain(value)} for name, value in facts.items()])


def _plain(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def _tell(message: str) -> None:
    typer.echo(message, err=True)


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool = False) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(rows[0] if len(rows) == 1 else rows, indent=1, ensure_ascii=False))
        return
    from circuitfind.reports.terminal import listing

    headers = list(rows[0])
    _print_table(listing(headers, [[str(row[name]) for name in headers] for row in rows]))


def _print_results(results: "list[RunResult]", *, as_json: bool) -> None:
    from circuitfind.reports.terminal import scorecard_table

    if as_json:
        _print_rows([result.as_json() for result in results], as_json=True)
        return
    for result in results:
        _print_table(scorecard_table(result.card, result.search))
        typer.echo(f"{result.path / 'diagram.svg'}\n")


def _print_table(table: Any) -> None:
    from rich.console import Console

    # Without a terminal, rich would cut lines at 80 columns.
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


@contextmanager
def _progress_bar() -> "Iterator[Callable[[Progress], None]]":
    """Show how far a search is, with the time that is left, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("edges"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kept]} kept"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("edges", total=None, kept=0)
        kept = 0

        def on_progress(progress: "Progress") -> None:
            nonlocal kept
            kept += sum(decision.kept for decision in progress.decisions)
            bar.update(shown, total=progress.total, completed=progress.done, kept=kept)

        yield on_progress


@contextmanager
def _interruptible(path: Path) -> Iterator[None]:
    """Leave on Ctrl-C with one line instead of a traceback; the directory can be resumed."""
    try:
        yield
    except KeyboardInterrupt:
        _tell(f"\ncircuitfind: interrupted; repeat the command to resume from {path}")
        raise typer.Exit(130) from None


def main() -> None:
    """Run the command; an error the user can act on becomes one line and exit code 2."""
    # Small models gain nothing from threads that spin while they wait, and lose much where the
    # cores are shared; must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _quieten_libraries()
    try:
        app()
    except CircuitfindError as error:
        typer.echo(f"circuitfind: {error}", err=True)
        raise SystemExit(2) from None


def _quieten_libraries() -> None:
    """Keep what the libraries below log and warn of off the user's terminal."""
    import logging
    import warnings

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    warnings.simplefilter("ignore")
