"""The command `discover`: it parses and prints, and leaves the work below."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuitfind.commands.console import (
    emit,
    interruptible,
    print_json,
    print_table,
    tell,
)
from circuitfind.commands.options import (
    Budget,
    Crossing,
    Device,
    Dtype,
    Json,
    Latents,
    Memory,
    MergeQkv,
    Metric,
    Model,
    Neurons,
    Places,
    Prompts,
    RankedBy,
    Seed,
    Shortlist,
    SplitEmbedding,
    System,
    Task,
    limited,
)
from circuitfind.commands.progress import progress_bar

if TYPE_CHECKING:
    from circuitfind.comparison.rule_checks import RuleChecks
    from circuitfind.directories.results import RunResult


def discover(
    task: Task,
    model: Model = None,
    method: Annotated[str, typer.Option(help="How to search (`circuitfind methods`).")] = "acdc",
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Rise of the loss from which on an edge is kept, in the metric's unit; several, "
            "separated by commas, are searched one after the other; `auto` starts at the metric's "
            "noise and goes down until the circuit does the task. [default: auto for acdc]"
        ),
    ] = None,
    edges: Annotated[
        int | None,
        limited("edges", "Keep this many edges (methods that rank them: all but acdc)."),
    ] = None,
    target_edges: Annotated[
        int | None,
        limited("target_edges", "Search for the threshold of acdc that keeps up to this many."),
    ] = None,
    target_faithfulness: Annotated[
        float | None,
        limited("target_faithfulness", "Search for a small circuit that is this faithful."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the method, NAME=VALUE; repeatable. It can also be given as a flag "
            "of its own: --order random, --absolute (`circuitfind methods acdc` lists them)."
        ),
    ] = None,
    metric: Metric = None,
    ablation: Annotated[
        str,
        typer.Option(
            help="What a cut edge carries: resample, zero, mean, ... (`circuitfind ablations`), or "
            "a file of learned constants."
        ),
    ] = "resample",
    prompts: Prompts = 64,
    seed: Seed = 0,
    system: System = None,
    keep_dead_ends: Annotated[
        bool,
        typer.Option(
            "--keep-dead-ends", help="Do not remove edges that lead nowhere (prune=false)."
        ),
    ] = False,
    merge_qkv: MergeQkv = False,
    split_embedding: SplitEmbedding = False,
    places: Places = None,
    crossing: Crossing = False,
    neurons: Neurons = None,
    latents: Latents = None,
    shortlist: Shortlist = 100,
    ranked_by: RankedBy = "eap-ig",
    dtype: Dtype = None,
    device: Device = "cpu",
    memory: Memory = None,
    workers: Annotated[
        int,
        limited("workers", "How many processes share the prompts of the search (docs/workers.md)."),
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(help="Have the workers on a Ray cluster: auto, an address, or local."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory; an interrupted run resumes. [default: runs/NAME]"),
    ] = None,
    budget: Budget = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html (see `circuitfind report`).")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Also measure how well eap or eap-ig ranks edges by each set of rules for its "
            "gradients: the rank correlation with the exact effects of 500 edges.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the circuit that MODEL uses for TASK: search, check, measure and draw it."""
    from circuitfind.budget import seconds_of, within
    from circuitfind.comparison.rule_checks import require_rules
    from circuitfind.directories.config import RunConfig
    from circuitfind.directories.naming import path_of_search
    from circuitfind.methods.settings import parsed_settings
    from circuitfind.methods.wanted import Wanted
    from circuitfind.tasks import model_for
    from circuitfind.verbs.check import check_run
    from circuitfind.verbs.series import Observer, run_wanted
    from circuitfind.workers.crew import Workers

    wanted, options = Wanted(threshold, edges, target_edges, target_faithfulness).with_options(
        method, parsed_settings(method, [*(option or []), *["prune=false"] * keep_dead_ends])
    )
    config = RunConfig(
        task=task,
        model=model_for(task, model),
        method=method,
        options=options,
        metric=metric,
        ablation=ablation,
        n_prompts=prompts,
        seed=seed,
        system=system,
        dtype=dtype,
        device=device,
        memory=memory,
        split_qkv=not merge_qkv,
        split_embedding=split_embedding,
        places=places,
        crossing=crossing,
        neurons=neurons,
        latents=latents,
        shortlist=shortlist,
        ranked_by=ranked_by,
    )
    if check:
        require_rules(method)
    path = out or path_of_search(config, wanted)
    with interruptible(path, budget), progress_bar() as on_progress:
        observer = Observer(within(seconds_of(budget), on_progress), tell)
        results = run_wanted(path, config, wanted, observer, Workers(workers, ray))
        if report:
            from circuitfind.verbs.report import write_report

            for result in results:
                write_report(result.path, tell=tell)
        # Neither scores nor effects depend on how many edges a run keeps.
        checked = check_run(results[0].path, tell) if check else None
    _print_results(results, checked, as_json=as_json, report=report)


def _print_results(
    results: "list[RunResult]", checked: "RuleChecks | None", *, as_json: bool, report: bool
) -> None:
    if as_json:
        values = [result.as_json() for result in results]
        if checked is not None:
            values = [{**value, "check": asdict(checked)} for value in values]
        print_json(values[0] if len(values) == 1 else values)
        return
    from circuitfind.directories.directory import PAGE
    from circuitfind.reports.terminal import rule_table, scorecard_table

    for number, result in enumerate(results):
        if number:
            emit("\n")
        print_table(scorecard_table(result.card, result.search))
        emit(f"{result.path / 'diagram.svg'}\n")
        if report:
            emit(f"{result.path / PAGE}\n")
    if checked is not None:
        emit("\n")
        print_table(rule_table(checked))
