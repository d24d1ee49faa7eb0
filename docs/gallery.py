"""Write the gallery: a circuit, its picture and its figures for every task, by running the tool.

    python docs/gallery.py [TASK ...] [--plain]

Text between `<!-- NAME -->` and `<!-- /NAME -->` of docs/gallery.md is replaced, the pictures in
docs/images/gallery/ are drawn again, and the cards' figures go into docs/models.md. `--plain`
also searches each task of words without any option and writes the table of those. Seconds are left
out: they depend on the machine.
"""

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from figures import ROOT, replace_between, shown

from circuitfind.directories.config import RunConfig
from circuitfind.methods.wanted import Wanted
from circuitfind.models.zoo import TRAINED, model_card
from circuitfind.tasks import TASKS, find_task
from circuitfind.tasks.corpus import TRAINED as TRAINED_TASKS
from circuitfind.verbs.discover import RunResult, run_discovery
from circuitfind.verbs.series import run_wanted

PAGE = "docs/gallery.md"
PICTURES = ROOT / "docs" / "images" / "gallery"
MODEL = "gpt-4l"

THRESHOLDS = {
    "ioi": 0.02,
    "pronoun": 0.02,
    "induction": 0.03,
    "greater-than": 0.005,
    "docstring": 0.05,
    "agreement": 0.02,
    "capitals": 0.02,
    "successor": 0.02,
    "arithmetic": 0.06,
    "refusal": 0.2,
    "or-gate:both": 0.001,
}
"""Of the tasks of words, chosen so that circuits are faithful and readable."""

WIRED_THRESHOLD = 0.001

FINER: dict[str, tuple[dict[str, str], str]] = {
    "ioi-places": ({"places": "named"}, "at its named positions"),
    "ioi-latents": ({"latents": "zoo"}, "with latents of transcoders"),
}
"""Entries of circuits of `ioi-small` that are finer than heads and MLPs: the settings that say so,
which are options of the command line by the same names, and what they do."""


def main() -> None:
    """Run every task and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="which; by default all")
    parser.add_argument("--plain", action="store_true", help="also search without options")
    given = parser.parse_args()
    wanted = given.tasks
    PICTURES.mkdir(parents=True, exist_ok=True)
    known = (*TRAINED_TASKS, *(task for task in TASKS if task.written_in == "symbols"))
    for name in (*(task.name for task in known), "or-gate:both"):
        if name != "program" and (not wanted or name in wanted):
            with tempfile.TemporaryDirectory() as folder:
                write_entry(name, Path(folder) / "run")
    for name in FINER:
        if not wanted or name in wanted:
            with tempfile.TemporaryDirectory() as folder:
                write_finer(name, Path(folder) / "run")
    if given.plain:
        replace_between(PAGE, "plain", plain_table())
    replace_between("docs/models.md", "zoo", zoo_table())


def plain_table() -> str:
    """Return what `circuitfind discover TASK` alone finds for each task of words."""
    rows = ["| task | threshold | edges | | faithfulness | held-out prompts |", "|---" * 6 + "|"]
    for task in TRAINED_TASKS:
        config = RunConfig(task.name, MODEL, "acdc", {"threshold": 0.0}, metric=task.metric)
        with tempfile.TemporaryDirectory() as folder:
            (result,) = run_wanted(Path(folder) / "run", config, Wanted())
        card, threshold = result.card, result.circuit.origin["options"]["threshold"]
        own, held_out = card.measurements[0], card.held_out
        share = f"{100 * card.n_edges / card.n_edges_full:.1f} %"
        rows.append(
            f"| `{task.name}` | {threshold:.2g} {own.unit} | {card.n_edges} | {share} | "
            f"{shown(own.faithfulness)} | {shown(held_out and held_out.faithfulness)} |"
        )
    return "\n".join(rows)


def write_entry(name: str, folder: Path) -> None:
    """Search for one task's circuit and put its line and picture on the page."""
    task = find_task(name)
    config = RunConfig(
        task=name,
        model=task.model or MODEL,
        method="acdc",
        options={"threshold": THRESHOLDS.get(name, WIRED_THRESHOLD)},
        metric=task.metric,
    )
    write_run(name, run_discovery(folder, config), folder, config)


def write_finer(name: str, folder: Path) -> None:
    """Search for a circuit of more than heads and MLPs and put it on the page."""
    settings, _ = FINER[name]
    options = {"threshold": THRESHOLDS["ioi"]}
    config = replace(RunConfig("ioi", "ioi-small", "acdc", options, metric="kl"), **settings)
    write_run(name, run_discovery(folder, config), folder, config)


def write_run(name: str, result: RunResult, folder: Path, config: RunConfig) -> None:
    """Put the line and the picture of a run on the page."""
    settings, finer = FINER.get(name, ({}, ""))
    plain = name.replace(":", "-")
    shutil.copy(folder / "diagram.svg", PICTURES / f"{plain}.svg")
    others = f" --model {config.model}" * bool(settings)
    others += "".join(f" --{option} {value}" for option, value in settings.items())
    command = f"discover {config.task}{others} --threshold {config.options['threshold']:g}"
    how = f" {finer}" * bool(finer)
    text = (
        f"`circuitfind {command}`\n\n{line_of(result, config.metric)}\n\n"
        f"![The circuit of {config.task}{how} in {config.model}](images/gallery/{plain}.svg)"
    )
    replace_between(PAGE, plain, text)


def zoo_table() -> str:
    """Return what the cards of the trained models say, as a table of Markdown."""
    cards = {name: model_card(name) for name in TRAINED}
    known = [task.name for task in TRAINED_TASKS]
    names = [f"`{name}`" for name in cards]
    rows = [["", *names], ["---"] * (1 + len(names))]
    for label, value in (
        ("layers x heads", lambda c: f"{c['recipe']['n_layers']} x {c['recipe']['n_heads']}"),
        ("architecture", lambda c: c["recipe"]["architecture"]),
        ("width", lambda c: str(c["recipe"]["d_model"])),
        ("seed", lambda c: str(c["recipe"]["seed"])),
        ("parameters", lambda c: f"{c['parameters']:,}"),
        ("steps x texts", lambda c: f"{c['recipe']['steps']:,} x {c['recipe']['batch']}"),
    ):
        rows.append([label, *map(value, cards.values())])
    for task in known:
        shares = [card["accuracy"].get(task) for card in cards.values()]
        rows.append([f"`{task}`", *("-" if s is None else f"{100 * s:.1f} %" for s in shares)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def line_of(result: RunResult, metric: str) -> str:
    """Return one circuit's figures in a sentence."""
    card = result.card
    by_metric = {row.metric: row for row in card.measurements}
    others = f", {shown(card.held_out.faithfulness)} on held-out prompts" if card.held_out else ""
    share = 100 * card.n_edges / card.n_edges_full
    words = [
        f"**{card.n_edges} of {card.n_edges_full} edges** ({share:.1f} %)",
        f"faithfulness {shown(by_metric[metric].faithfulness)} ({metric}){others}",
    ]
    if "accuracy" in by_metric:
        row = by_metric["accuracy"]
        words.append(f"accuracy {row.circuit:.2f} (full model {row.full:.2f})")
    return "; ".join(words) + "."


if __name__ == "__main__":
    main()
