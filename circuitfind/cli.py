"""The command line: it parses and prints, and leaves the work to the packages below.

Results go to stdout, everything else to stderr. An error that the user can act on is one line and
exit code 2. Heavy imports sit inside the commands, so that `--help` answers at once.
"""

import os
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuitfind.console import (
    emit,
    interruptible,
    print_facts,
    print_json,
    print_rows,
    print_table,
    progress_bar,
    quieten_libraries,
    run_app,
    tell,
)
from circuitfind.patch_commands import patch, path_patch

if TYPE_CHECKING:
    from circuitfind.runs.results import RunResult

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
    str | None,
    typer.Option(
        help="Embedded model (`circuitfind models`), model directory, compiled model's .json, or "
        "hub name. [default: gpt-4l, or the model that the task is about]"
    ),
]
Seed = Annotated[int, typer.Option(help="Fixes the prompts and every random choice.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, float64 or bfloat16; by default that of the weights.")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")]


@app.command()
def discover(
    task: Annotated[
        str,
        typer.Argument(help="TASK or TASK:CORRUPTION (`circuitfind tasks`), or a .jsonl or .csv."),
    ],
    model: ModelOption = None,
    method: Annotated[str, typer.Option(help="How to search (`circuitfind methods`).")] = "acdc",
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Rise of the loss from which on an edge is kept, in the metric's unit; several, "
            "separated by commas, are searched one after the other; `auto` takes the metric's "
            "noise. [default: auto for acdc]"
        ),
    ] = None,
    edges: Annotated[
        int | None,
        typer.Option(help="Keep this many edges (methods that rank them: all but acdc)."),
    ] = None,
    target_edges: Annotated[
        int | None,
        typer.Option(help="Search for the threshold of acdc that keeps up to this many edges."),
    ] = None,
    target_faithfulness: Annotated[
        float | None, typer.Option(help="Search for a small circuit that is this faithful.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Another option of the method (`circuitfind methods`), NAME=VALUE; repeatable."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What to measure: kl, logit-difference, probability-difference, loss, accuracy or "
            "l2. [default: the task's own]"
        ),
    ] = None,
    ablation: Annotated[
        str,
        typer.Option(help="What a cut edge carries: resample, zero, mean or mean-over-positions."),
    ] = "resample",
    prompts: Annotated[int, typer.Option(help="How many pairs of prompts.")] = 64,
    seed: Seed = 0,
    order: Annotated[
        str | None,
        typer.Option(
            help="Order in which acdc visits a layer's heads: backward-index, forward-index or "
            "random. [default: backward-index]"
        ),
    ] = None,
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
    budget: Annotated[
        str | None,
        typer.Option(
            help="Stop after this time (90s, 10m, 1.5h), ready to resume, with exit code 124."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the circuit that MODEL uses for TASK: search, check, measure and draw it."""
    from circuitfind.runs.budget import seconds_of, within
    from circuitfind.runs.config import RunConfig
    from circuitfind.runs.options import parsed_options
    from circuitfind.runs.series import Observer, run_wanted
    from circuitfind.runs.wanted import Wanted
    from circuitfind.tasks import find_task, model_for

    given = {"order": order, "absolute": absolute, "group_qkv": group_qkv}
    options: dict[str, Any] = {name: value for name, value in given.items() if value}
    options |= parsed_options(method, option or [])
    if keep_dead_ends:
        options["prune"] = False
    config = RunConfig(
        task=task,
        model=model_for(task, model),
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
    path = out or config.default_path
    wanted = Wanted(threshold, edges, target_edges, target_faithfulness)
    seconds = inf if budget is None else seconds_of(budget)
    with interruptible(path), progress_bar() as on_progress:
        results = run_wanted(path, config, wanted, Observer(within(seconds, on_progress), tell))
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
    from circuitfind.runs.drawing import draw_run, draw_runs

    diagram, beside = draw_run(circuit) if against is None else draw_runs(circuit, against)
    emit(f"{diagram.save(out or beside)}\n")


@app.command()
def tasks(
    task: Annotated[
        str | None, typer.Argument(help="Show three pairs of this task's prompts.")
    ] = None,
    model: ModelOption = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """List the tasks, or show what one looks like to a model."""
    from circuitfind.tasks import TASKS, find_task, model_for

    if task is None:
        rows = [
            {
                "name": known.name,
                "summary": known.summary,
                "metric": known.metric,
                "other corruptions": ", ".join(known.corruptions),
                "source": known.source,
            }
            for known in TASKS
        ]
    else:
        from circuitfind.models.loading import load_model
        from circuitfind.tasks.show import shown_pairs

        loaded = load_model(model_for(task, model))
        rows = shown_pairs(find_task(task), loaded.vocabulary, seed=seed)
    print_rows(rows, as_json=as_json)


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Show this model's card.")] = None,
    as_json: Json = False,
) -> None:
    """List the models that ship with the package, or show the card of one."""
    from circuitfind.models.zoo import ZOO, model_card

    if model is None:
        rows = [{"name": name, "summary": summary} for name, summary in ZOO.items()]
        print_rows(rows, as_json=as_json)
    else:
        print_facts(model_card(model), as_json=as_json)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the search methods and their options."""
    from dataclasses import fields

    from circuitfind.methods import METHODS

    rows = [
        {
            "name": method.name,
            "summary": method.summary,
            "options": ", ".join(option.name for option in fields(method.options)),
            "source": method.paper,
        }
        for method in METHODS
    ]
    print_rows(rows, as_json=as_json)


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

    print_facts(inspected(load_model(model, dtype=dtype, device=device)), as_json=as_json)


app.command()(patch)
app.command()(path_patch)


def _print_results(results: "list[RunResult]", *, as_json: bool) -> None:
    if as_json:
        values = [result.as_json() for result in results]
        print_json(values[0] if len(values) == 1 else values)
        return
    from circuitfind.reports.terminal import scorecard_table

    for number, result in enumerate(results):
        if number:
            emit("\n")
        print_table(scorecard_table(result.card, result.search))
        emit(f"{result.path / 'diagram.svg'}\n")


def main() -> None:
    """Run the command; see `circuitfind.console.run_app` for how it ends."""
    # Small models gain nothing from threads that spin while they wait, and lose much where the
    # cores are shared; must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    quieten_libraries()
    raise SystemExit(run_app(app))
