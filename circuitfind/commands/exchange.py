"""The commands `export` and `import`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit
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


def import_(
    file: Annotated[Path, typer.Argument(help="A circuit in any format that `export` writes.")],
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
) -> None:
    """Read a circuit of another program into a directory."""
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
