"""Write the page on a real model: circuits of SmolLM2-135M-Instruct, their figures and pictures.

    circuitfind models get smollm2
    python docs/smollm2.py [PART ...] [--runs DIRECTORY] [--stories DIRECTORY]

The parts are `first`, `positions`, `methods`, `tasks`, one for each task of the gallery, and
`comparison`; by default all. Text between `<!-- PART -->` and `<!-- /PART -->` of docs/smollm2.md
is replaced. Runs are kept in a directory, where an interrupted one is taken up and a finished
one is read. The comparison needs the directory of the model stories260k.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from figures import ROOT, replace_between, shown

import circuitfind as cf
from circuitfind.circuit import EdgeScores
from circuitfind.directories.config import RunConfig
from circuitfind.directories.decisions import read_decisions
from circuitfind.directories.results import RunResult, read_result
from circuitfind.directories.work import read_config
from circuitfind.engine.incremental import IncrementalEngine
from circuitfind.errors import CircuitfindError
from circuitfind.evaluation.scorecard import Measurement, measure, measurement
from circuitfind.evaluation.trust import own_of
from circuitfind.methods.base import circuit_of
from circuitfind.metrics import ACCURACY, KL, LOGIT_DIFFERENCE
from circuitfind.tasks import TASKS

PAGE, MODEL = "docs/smollm2.md", "smollm2"
PICTURES = ROOT / "docs/images/gallery"

FIRST = "ioi --threshold 0.05"
POSITIONS = "ioi --metric logit-difference --threshold 0.3 --places named"
EAP_IG = "--method eap-ig --target-faithfulness 0.8"
METHODS = (
    FIRST,
    f"ioi {EAP_IG}",
    "ioi --prompts 32 --metric logit-difference --method eap-ig --edges 6000",
    "ioi --prompts 32 --metric logit-difference --method eap-ig --edges 8000",
)
RANKINGS = ("ioi --prompts 32 --method eap-ig --edges 1000", METHODS[-1])
"""By KL, and by the logit difference."""

SHARE = 0.03
"""Of the scores by the logit difference in the sum of both rankings."""

TARGET = 0.8
"""Faithfulness that a circuit must have by both metrics, on all prompts."""

SIZES = range(1500, 4001, 100)
"""Numbers of edges that are tried, the smallest first, until a circuit reaches the target."""

MEASURED = (KL, LOGIT_DIFFERENCE, ACCURACY)
GALLERY = ("ioi", "pronoun", "capitals", "docstring")
MOST_DRAWN = 30
"""Edges in a picture, those of the largest scores."""

OTHERS = ("gpt-2l", "gpt-4l", "llama-4l")
"""The embedded models with which SmolLM2 is compared."""


def main() -> None:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="by default all")
    parser.add_argument("--runs", type=Path, default=Path("runs/smollm2"), help="where runs are")
    parser.add_argument("--stories", type=Path, help="directory of the model stories260k")
    given = parser.parse_args()
    writers = {"first": first, "positions": positions, "methods": methods, "tasks": tasks}
    writers |= {task: lambda runs, task=task: entry(runs, task) for task in GALLERY}
    for part, written in writers.items():
        if not given.parts or part in given.parts:
            replace_between(PAGE, part, written(given.runs))
    if given.stories is not None and (not given.parts or "comparison" in given.parts):
        replace_between(PAGE, "comparison", comparison(given.runs, str(given.stories)))


def first(runs: Path) -> str:
    """Return what the first command prints, and keep its picture."""
    return printed(runs, FIRST, "smollm2-ioi")


def positions(runs: Path) -> str:
    """Return what the search with named positions prints, and keep its picture."""
    return printed(runs, POSITIONS, "smollm2-positions")


def printed(runs: Path, command: str, picture: str) -> str:
    """Return what a command prints but for the time it took, and keep its picture."""
    folder = ran(runs, command)
    lines = [line.rstrip() for line in said(runs, command).strip().splitlines()[:-1]]
    lines = [line for line in lines if not line.startswith("seconds")]
    shutil.copy(folder / "diagram.svg", ROOT / f"docs/images/{picture}.svg")
    return "```\n" + "\n".join(lines) + "\n```"


def methods(runs: Path) -> str:
    """Return a table of methods."""
    heading = (
        "`discover ...`", "edges", "heads and MLPs", "KL", "KL, held out", "logit difference",
        "logit difference, held out", "accuracy, circuit (model)", "minutes",
    )  # fmt: skip
    rows = [method_row(read_result(ran(runs, command))) for command in METHODS]
    return table(heading, [*rows, both_row(runs)])


def method_row(found: RunResult) -> tuple[str, ...]:
    """Return one circuit's figures; faithfulness by two metrics, also on prompts not seen."""
    card = found.card
    accuracy = next(each for each in card.measurements if each.metric == "accuracy")
    others = held_out(found)
    shares = [
        share
        for metric in (KL.name, LOGIT_DIFFERENCE.name)
        for share in (by_metric(found, metric), others[metric])
    ]
    return (
        f"`{command_of(found)}`",
        str(card.n_edges),
        str(card.n_components),
        *map(shown, shares),
        f"{accuracy.circuit:.2f} ({accuracy.full:.2f})",
        f"{found.search['seconds'] / 60:.0f}",
    )


def both_row(runs: Path) -> tuple[str, ...]:
    """Return the figures of the smallest circuit that is faithful by both metrics."""
    file = runs / "ioi-both.json"
    if not file.is_file():
        file.write_text(json.dumps(smallest(runs)))
    found = json.loads(file.read_text())
    return (
        f"both rankings: size of KL's + {SHARE} x logit difference's",
        str(found["edges"]),
        str(found["heads and MLPs"]),
        *(shown(share) for metric in (KL, LOGIT_DIFFERENCE) for share in found[metric.name]),
        f"{found['accuracy']:.2f} ({found['accuracy of the model']:.2f})",
        f"{found['seconds'] / 60:.0f}",
    )


def smallest(runs: Path) -> dict[str, Any]:
    """Search for as few edges as are faithful by both metrics on both sets of prompts.

    Edges are ranked by the size of what they do to KL, plus a share of what they do for the logit
    difference: one that lowers it must matter more for KL to be kept. Faithfulness is not monotone
    in the number of edges, so numbers are tried from below.
    """
    found = [read_result(ran(runs, each)) for each in RANKINGS]
    started = time.perf_counter()
    graph = found[0].circuit.graph
    by_kl, by_answer = (
        circuit_of(graph, read_decisions(each.path / "decisions.jsonl")).effects for each in found
    )
    assert by_kl is not None and by_answer is not None
    ranking = EdgeScores(graph, by_kl.abs() + SHARE * by_answer, "nats", "both")
    judge = Judge(read_config(RunConfig, found[0].path))
    for size in SIZES:
        circuit = ranking.top(size, signed=True).connected()
        if (shares := judge(circuit)) is not None:
            break
    circuit.save(runs / "ioi-both.circuit.json")
    seconds = sum(each.search["seconds"] for each in found) + time.perf_counter() - started
    return {**shares, "seconds": seconds}


class Judge:
    """Measures circuits on the prompts of a run and on as many others."""

    def __init__(self, config: RunConfig) -> None:
        problems = (config.problem(smollm2()), config.held_out(smollm2()))
        self._engines = [IncrementalEngine(problem) for problem in problems if problem is not None]
        every = self._engines[0].graph.edge_mask
        self._ends = [
            (values(engine, every), values(engine, torch.zeros_like(every)))
            for engine in self._engines
        ]

    def __call__(self, circuit: cf.Circuit) -> dict[str, Any] | None:
        """Return a circuit's figures; None where it does not reach the target."""
        shares: dict[str, list[float]] = {KL.name: [], LOGIT_DIFFERENCE.name: []}
        accuracies = []
        for engine, (full, empty) in zip(self._engines, self._ends, strict=True):
            found = values(engine, circuit.kept)
            for metric in (KL, LOGIT_DIFFERENCE):
                each = (ends[metric.name] for ends in (full, found, empty))
                shares[metric.name].append(measurement(metric, *each).faithfulness or 0.0)
            print(f"{circuit.n_edges} edges: {shares}", flush=True)
            if min(each[-1] for each in shares.values()) < TARGET:
                return None
            accuracies.append([float(row["accuracy"].mean()) for row in (found, full)])
        return {
            **shares,
            "edges": circuit.n_edges,
            "heads and MLPs": len(circuit.heads_and_mlps),
            "accuracy": accuracies[0][0],
            "accuracy of the model": accuracies[0][1],
        }


def values(engine: IncrementalEngine, kept: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return some metrics of a circuit on each prompt."""
    with torch.no_grad():
        (final,) = engine.finals([kept])
        return {each.name: engine.readout_of(each).by_prompt(final) for each in MEASURED}


def command_of(found: RunResult) -> str:
    """Return the command of a run, as its directory is called."""
    return next(each for each in METHODS if name_of(each) == found.path.name)


def by_metric(found: RunResult, metric: str) -> float | None:
    """Return a circuit's faithfulness by a metric."""
    rows = {each.metric: each for each in found.card.measurements}
    return rows[metric].faithfulness if metric in rows else None


def held_out(found: RunResult) -> Mapping[str, float | None]:
    """Return a circuit's faithfulness by two metrics on prompts that the search has not seen."""
    file = found.path.with_name(f"{found.path.name}.held-out.json")
    if not file.is_file():
        problem = read_config(RunConfig, found.path).held_out(smollm2())
        engine = IncrementalEngine(problem)
        shares = {m.name: measure(engine, found.circuit, m) for m in (KL, LOGIT_DIFFERENCE)}
        file.write_text(json.dumps({name: each.faithfulness for name, each in shares.items()}))
    found_there: Mapping[str, float | None] = json.loads(file.read_text())
    return found_there


@cache
def smollm2() -> Any:
    """Return the model, loaded once."""
    return cf.load_model(MODEL)


def tasks(runs: Path) -> str:
    """Return how well the model itself does each task of words."""
    heading = ("task", "logit difference", "accuracy", "in the gallery")
    return table(heading, list(task_rows()))


def task_rows() -> Iterator[tuple[str, ...]]:
    """Yield a row for each task of words that the tokenizer can express."""
    for task in TASKS:
        if task.written_in != "words" or task.name == "program":
            continue
        try:
            own = own_of(cf.make_problem(smollm2(), task.name, n_prompts=16))
        except CircuitfindError:
            continue
        if own is not None:
            value = "-" if own.metric == "accuracy" else f"{own.value:.2f}"
            ends = "" if own.low is None else f" ({own.low:.2f} to {own.high:.2f})"
            drawn = f"[below](#{task.name})" if task.name in GALLERY else "no"
            yield f"`{task.name}`", value + ends, f"{own.accuracy:.2f}", drawn


def entry(runs: Path, task: str) -> str:
    """Return one task's circuit: its command, its figures, its picture and the roles of heads."""
    folder = ran(runs, f"{task} {EAP_IG}")
    found = read_result(folder)
    card, picture = found.card, f"smollm2-{task}.svg"
    circuitfind("draw", folder, "--top", MOST_DRAWN, "--out", PICTURES / picture)
    rows = {each.metric: each for each in card.measurements}
    command = f"circuitfind discover {task} --model smollm2 {EAP_IG} --prompts 16"
    return "\n\n".join(
        (
            f"`{command}`",
            f"**{card.n_edges} of {card.n_edges_full} edges** "
            f"({100 * card.n_edges / card.n_edges_full:.1f} %), {card.n_components} of "
            f"{card.n_components_full} heads and MLPs; {figures_of(rows)}; on held-out prompts "
            f"{shown(card.held_out and card.held_out.faithfulness)} (kl); "
            f"{found.search['seconds'] / 60:.0f} min.",
            f"Roles of heads in the circuit: {roles(folder)}.",
            f"![The {MOST_DRAWN} largest edges of {task} in SmolLM2](images/gallery/{picture})",
        )
    )


def figures_of(rows: Mapping[str, Measurement]) -> str:
    """Return a circuit's figures in words."""
    faithful = ", ".join(
        f"{shown(rows[name].faithfulness)} ({name})"
        for name in ("kl", "logit-difference")
        if name in rows
    )
    accuracy = rows["accuracy"]
    return f"faithfulness {faithful}; accuracy {accuracy.circuit:.2f} (model {accuracy.full:.2f})"


def roles(folder: Path) -> str:
    """Return which heads of a circuit have which role."""
    rows = json.loads(circuitfind("roles", folder, "--json"))
    named: dict[str, list[str]] = {}
    for row in rows:
        if row["in the circuit"]:
            heads = named.setdefault(row["role"], [])
            heads += [row["component"]] if row["component"] not in heads else []
    return "; ".join(f"{role} {_some(heads)}" for role, heads in named.items()) or "none"


def _some(heads: list[str], most: int = 6) -> str:
    """Return heads in words, not all where there are many."""
    more = f" and {len(heads) - most} more" if len(heads) > most else ""
    return ", ".join(f"`{head}`" for head in heads[:most]) + more


def comparison(runs: Path, stories: str) -> str:
    """Return one task's circuits in models of several sizes."""
    heading = (
        "model", "layers x heads", "edges of the model", "its accuracy", "edges kept", "",
        "heads and MLPs", "KL", "KL, held out", "roles of heads in the circuit",
    )  # fmt: skip
    models = (MODEL, stories, *OTHERS)
    return table(heading, [compared(runs, model) for model in models])


def compared(runs: Path, model: str) -> tuple[str, ...]:
    """Return the figures of the circuit of `pronoun` in a model."""
    name = Path(model).name
    folder = ran(runs, f"pronoun {EAP_IG}", model)
    card = read_result(folder).card
    shape, held = read_result(folder).circuit.graph.shape, card.held_out
    assert card.own is not None
    return (
        f"`{name}`",
        f"{shape.n_layers} x {shape.total('n_heads') // shape.n_layers}",
        f"{card.n_edges_full:,}",
        f"{card.own.accuracy:.2f}",
        str(card.n_edges),
        f"{100 * card.n_edges / card.n_edges_full:.1f} %",
        str(card.n_components),
        shown(card.measurements[0].faithfulness),
        shown(held and held.faithfulness),
        roles(folder),
    )


def ran(runs: Path, command: str, model: str = MODEL) -> Path:
    """Run a command unless it is finished, and return its directory."""
    folder = runs / name_of(command, model)
    if not (folder / "circuit.json").is_file():
        said(runs, command, model)
    return folder


def name_of(command: str, model: str = MODEL) -> str:
    """Return the name of a command's directory."""
    of_model = "" if model == MODEL else f"-{Path(model).name}"
    return command.replace(" --", "-").replace(" ", "-").replace("=", "-") + of_model


def said(runs: Path, command: str, model: str = MODEL) -> str:
    """Return what a command prints; with 16 pairs of prompts unless it says otherwise."""
    words = command.split()
    words += [] if "--prompts" in words else ["--prompts", "16"]
    out = runs / name_of(command, model)
    return circuitfind("discover", *words, "--model", model, "--out", out)


def circuitfind(*words: object) -> str:
    """Run a command and return what it prints."""
    program = Path(sys.executable).with_name("circuitfind")
    run = subprocess.run([program, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True)
    return run.stdout


def table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return rows under their heading."""
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
