"""The commands `patch` and `path-patch`: they parse and print, and leave the work below."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuitfind.commands.console import (
    emit,
    interruptible,
    print_json,
    print_tables,
    tell,
)
from circuitfind.commands.options import (
    Budget,
    Device,
    Dtype,
    Json,
    Memory,
    Model,
    Prompts,
    Seed,
    System,
    Task,
    limited,
)
from circuitfind.commands.progress import progress_bar

if TYPE_CHECKING:
    from circuitfind.directories.patch_config import PatchConfig
    from circuitfind.verbs.patch_run import PatchRun

ModeOption = Annotated[
    str,
    typer.Option(
        help="denoising (clean activations into the corrupted run), noising (corrupted into "
        "clean), interchange (each prompt of a pair into the other) or interchange-within (those "
        "of another clean prompt into the clean run)."
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="What to measure. [default: logit-difference, or the task's own without answers]"
    ),
]
Threshold = Annotated[
    float,
    limited(
        "patch_threshold",
        "Smallest significant effect, as a share of the difference between the two runs.",
    ),
]
Annotate = Annotated[
    bool, typer.Option("--annotate", help="Write every effect into its square of the heatmaps.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Directory for the files; what was interrupted resumes. [default: runs/NAME]"
    ),
]


def patch(
    task: Task,
    model: Model = None,
    sites: Annotated[
        str,
        typer.Option(
            help="What to patch: resid, attn, mlp, head, q, k, v, pattern, resid_mid, resid_post, "
            "pattern_cell, the groups block and heads, or any activation by its TransformerLens "
            "name (post, attn_scores, blocks.3.hook_resid_mid); several separated by commas."
        ),
    ] = "block,head",
    mode: ModeOption = "denoising",
    positions: Annotated[
        str | None,
        typer.Option(
            help="Where: each, all (at once), last, named, or names and indices separated by "
            "commas. [default: named, or each where the prompts name none]"
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Which layers, such as 3-5,8. [default: all]")
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help="Which heads of them, such as 0,2; of keys and values those that these heads "
            "read. [default: all]"
        ),
    ] = None,
    metric: MetricOption = None,
    prompts: Prompts = 64,
    seed: Seed = 0,
    system: System = None,
    threshold: Threshold = 0.05,
    annotate: Annotate = False,
    discover: Annotated[
        bool,
        typer.Option("--discover", help="Find and draw the circuit of what is significant."),
    ] = False,
    edge_threshold: Annotated[
        float | None,
        limited(
            "edge_threshold",
            "Smallest effect of an edge of it.",
            default="a fifth of --threshold, halved up to 5 times until --target-faithfulness is "
            "reached",
        ),
    ] = None,
    target_faithfulness: Annotated[
        float, limited("target_faithfulness", "Wanted faithfulness of the circuit.")
    ] = 0.8,
    dtype: Dtype = None,
    device: Device = "cpu",
    memory: Memory = None,
    out: Out = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Patch activations of one run into another and show where that matters."""
    from circuitfind.directories.patch_config import PatchConfig
    from circuitfind.tasks import model_for

    config = PatchConfig(
        task=task,
        model=model_for(task, model),
        sites=sites,
        positions=positions,
        layers=layers,
        heads=heads,
        mode=mode,
        metric=metric,
        n_prompts=prompts,
        seed=seed,
        system=system,
        dtype=dtype,
        device=device,
        memory=memory,
        threshold=threshold,
        annotate=annotate,
        discover=discover,
        edge_threshold=edge_threshold,
        target_faithfulness=target_faithfulness,
    )
    _run(config, out, budget, as_json=as_json)


def path_patch(
    task: Task,
    model: Model = None,
    senders: Annotated[
        str | None,
        typer.Option("--from", help="Writers, such as a0.h1,m0, separated by commas; all if none."),
    ] = None,
    receivers: Annotated[
        str | None,
        typer.Option("--to", help="Readers, such as a2.h2.v,logits; all if none."),
    ] = None,
    via: Annotated[
        str | None,
        typer.Option(help="Readers that the path leads through, in order, such as m0,a1.h1.k."),
    ] = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Patch all edges from --from into --to at once."),
    ] = False,
    norm: Annotated[
        str,
        typer.Option(
            help="How readers norm what a path changes: exact (anew) or frozen (with the scale of "
            "the unpatched run)."
        ),
    ] = "exact",
    mode: ModeOption = "noising",
    metric: MetricOption = None,
    prompts: Prompts = 64,
    seed: Seed = 0,
    system: System = None,
    threshold: Threshold = 0.05,
    annotate: Annotate = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    memory: Memory = None,
    out: Out = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Send a component's output of one run into another run along chosen edges alone."""
    from circuitfind.directories.patch_config import PatchConfig
    from circuitfind.tasks import model_for

    config = PatchConfig(
        task=task,
        model=model_for(task, model),
        senders=_names(senders),
        receivers=_names(receivers),
        via=_names(via) or (),
        together=together,
        norm=norm,
        mode=mode,
        metric=metric,
        n_prompts=prompts,
        seed=seed,
        system=system,
        dtype=dtype,
        device=device,
        memory=memory,
        threshold=threshold,
        annotate=annotate,
    )
    _run(config, out, budget, as_json=as_json)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(","))


def _run(config: "PatchConfig", out: Path | None, budget: str | None, *, as_json: bool) -> None:
    from circuitfind.budget import seconds_of, within
    from circuitfind.directories.naming import path_of_patching
    from circuitfind.verbs.patch import run_patching

    path = out or path_of_patching(config)
    with interruptible(path, budget), progress_bar() as on_progress:
        observer = within(seconds_of(budget), on_progress)
        run = run_patching(path, config, on_progress=observer, tell=tell)
    if as_json:
        print_json(run.as_json())
    else:
        _print(run)
    if run.failure is not None:
        raise run.failure
    if run.circuit is not None and (warning := run.circuit_warning(config.target_faithfulness)):
        tell(f"warning: {warning}")


def _print(run: "PatchRun") -> None:
    print_tables(run.report.tables())
    emit("\n")
    if run.circuit is not None:
        emit(f"{run.circuit_line()}\n")
    for drawing in run.drawings:
        emit(f"{drawing}\n")
