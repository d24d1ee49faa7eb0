"""Arguments and options that several commands have, declared once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from circuitfind.budget import bytes_of
from circuitfind.limits import LIMITS, require


def limited(name: str, text: str, *, default: str = "") -> Any:
    """Return an option that takes a number, with its range in its help and checked at once.

    Args:
        name: Its name in `LIMITS`.
        text: Its help.
        default: What stands for a default that is not a number, for the help.
    """

    def check(value: Any) -> Any:
        require(**{name: value})
        return value

    shown = f" [default: {default}]" if default else ""
    return typer.Option(help=f"{text} {_range(name)}.{shown}", callback=check)


def _range(name: str) -> str:
    text = LIMITS[name].range
    return f"{text[0].upper()}{text[1:]}"


Task = Annotated[
    str,
    typer.Argument(help="TASK or TASK:CORRUPTION (`circuitfind tasks`), or a .jsonl or .csv."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Embedded model (`circuitfind models`), model directory, compiled model's .json, or "
        "hub name. [default: gpt-4l, or the model that the task is about]"
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="What to measure: kl, logit-difference, ... (`circuitfind metrics`). [default: the "
        "task's own]"
    ),
]
Prompts = Annotated[int, limited("prompts", "How many pairs of prompts.")]
MergeQkv = Annotated[
    bool, typer.Option("--merge-qkv", help="Give each head one input instead of q, k and v.")
]
SplitEmbedding = Annotated[
    bool, typer.Option("--split-embedding", help="Make token and position separate writers.")
]
Places = Annotated[
    str | None,
    typer.Option(
        help="Tell edges apart by token position: named (the task's named positions and what lies "
        "between them), each (every position), spans (of a task file), or a .csv file with the "
        "spans of each prompt. [default: an edge acts at all positions]"
    ),
]
Crossing = Annotated[
    bool,
    typer.Option(
        "--crossing",
        help="With --places: let each port of a head have an edge from each place that it attends "
        "to, to each place where it writes.",
    ),
]
Neurons = Annotated[
    str | None,
    typer.Option(
        metavar="LAYERS",
        help="Let single neurons of these MLPs write: layers such as 3-5,8, or all. "
        "[default: an MLP writes as a whole]",
    ),
]
Latents = Annotated[
    str | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Let single latents write: a directory of transcoders or SAEs (SAELens, "
        "circuit-tracer, Gemma Scope, sparsify), or zoo for those that ship with the package.",
    ),
]
Shortlist = Annotated[
    int,
    limited("shortlist", "How many neurons or latents, those with the largest scores by RANKING."),
]
RankedBy = Annotated[
    str,
    typer.Option(
        metavar="RANKING",
        help="What these are ranked by: eap or eap-ig, or one with rules for its gradients "
        "(docs/methods.md#rules): eap:gim.",
    ),
]
Seed = Annotated[int, limited("seed", "Fixes the prompts and every random choice.")]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="System prompt of conversations with a chat model (refusal, files with chat); '' for "
        "none. [default: that of the file, or of the model's chat template]",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Round the weights to float32, float64, bfloat16 or float16; by default as stored. "
        "Half precision is computed with in float32."
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")]
Circuit = Annotated[Path, typer.Argument(help="A run directory or a circuit file.")]
Memory = Annotated[
    int | None,
    typer.Option(
        parser=bytes_of,
        metavar="SIZE",
        help="What may be taken beside the model (500MB, 2GB): where that is too little, the "
        "prompts are taken in chunks, to the same result. [default: as much as it takes]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Stop after this time (90s, 10m, 1.5h), ready to be repeated, with exit code 124."
    ),
]
