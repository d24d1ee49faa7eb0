"""The commands `export`, `publish` and `import`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, interruptible, print_table, tell
from circuitfind.commands.options import Circuit, MergeQkv, SplitEmbedding, limited


def export(
    circuit: Circuit,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="eap-ig, acdc, graphml, dot, networkx, csv or circuitfind; or a folder to submit "
            "to MIB: mib-importances or mib-circuits.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File or folder to write. [default: beside the circuit]"),
    ] = None,
) -> None:
    """Write a circuit in a format that other programs read."""
    from circuitfind.verbs.exchange import export_run

    emit(f"{export_run(circuit, format_name, out)}\n")


def publish(
    run: Annotated[Path, typer.Argument(help="A finished run's directory.")],
    to: Annotated[Path, typer.Option(help="Folder to write, new or empty.")],
    author: Annotated[
        list[str] | None,
        typer.Option(help="Who found it, for CITATION.cff. Can be repeated."),
    ] = None,
) -> None:
    """Write a run into a folder that others can verify and repeat, with a hash of every file."""
    from circuitfind.verbs.publish import publish_run

    emit(f"{publish_run(run, to, authors=author or (), tell=tell)}\n")


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="A circuit in any format that `export` writes, or a folder of `publish`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    model: Annotated[
        str | None,
        typer.Option(help="The model, for files that do not hold its graph; see `discover`."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="The task, for files that do not say what they are about.")
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="See `export`. [default: told from the file]")
    ] = None,
    edges: Annotated[
        int | None,
        limited("edges", "Keep this many edges of the largest scores.", default="what FILE keeps"),
    ] = None,
    merge_qkv: MergeQkv = False,
    split_embedding: SplitEmbedding = False,
    repeat: Annotated[
        bool,
        typer.Option(
            "--repeat",
            help="Search again with the settings of a published run, and list what differs; exit "
            "with 1 if the circuits do.",
        ),
    ] = False,
) -> None:
    """Read a circuit of another program, or a published run, into a directory."""
    others = {
        "--task": task is not None,
        "--format": format_name is not None,
        "--edges": edges is not None,
        "--merge-qkv": merge_qkv,
        "--split-embedding": split_embedding,
    }
    if file.is_dir():
        _refuse(others, "a published folder says that itself")
        _take_in(file, out, model, repeat=repeat)
        return
    _refuse({"--repeat": repeat}, "only a published folder can be repeated")
    from circuitfind.granularity import heads_and_mlps
    from circuitfind.models.loading import load_model
    from circuitfind.verbs.exchange import import_file

    graph = None
    if model is not None:
        graph = heads_and_mlps(
            load_model(model).shape, merge_qkv=merge_qkv, split_embedding=split_embedding
        )
    circuit = import_file(
        file, out, graph=graph, format_name=format_name, n_edges=edges, task=task, model=model
    )
    emit(f"{out}: {circuit.n_edges} of {circuit.graph.n_edges} edges\n")


def _refuse(given: Mapping[str, bool], reason: str) -> None:
    """Refuse options that would do nothing.

    Raises:
        CircuitfindError: One of them is given.
    """
    if extra := [name for name, is_given in given.items() if is_given]:
        from circuitfind.errors import CircuitfindError

        raise CircuitfindError(f"leave {', '.join(extra)} out: {reason}")


def _take_in(folder: Path, out: Path, model: str | None, *, repeat: bool) -> None:
    """Verify a published run, and make it again if that is wanted."""
    from circuitfind.commands.progress import progress_bar
    from circuitfind.verbs.published import import_publication, rerun

    circuit = import_publication(folder, out, model=model)
    emit(f"{out}: {circuit.n_edges} of {circuit.graph.n_edges} edges; every file is as published\n")
    if not repeat:
        return
    from circuitfind.reports.terminal import listing

    with interruptible(out), progress_bar() as on_progress:
        found = rerun(out, on_progress=on_progress, tell=tell)
    print_table(listing(("what", "published", "here"), found.rows))
    if not found.same:
        raise typer.Exit(1)
