"""Arguments and options that several commands have, declared once."""

from pathlib import Path
from typing import Annotated

import typer

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
Prompts = Annotated[int, typer.Option(help="How many pairs of prompts.")]
MergeQkv = Annotated[
    bool, typer.Option("--merge-qkv", help="Give each head one input instead of q, k and v.")
]
SplitEmbedding = Annotated[
    bool, typer.Option("--split-embedding", help="Make token and position separate writers.")
]
Seed = Annotated[int, typer.Option(help="Fixes the prompts and every random choice.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, float64 or bfloat16; by default that of the weights.")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")]
Circuit = Annotated[Path, typer.Argument(help="A run directory or a circuit file.")]
Memory = Annotated[
    str | None,
    typer.Option(
        help="What a search may take beside the model (500MB, 2GB): with less than it would take, "
        "it takes the prompts in chunks, to the same result. [default: what it takes]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Stop after this time (90s, 10m, 1.5h), ready to resume, with exit code 124."
    ),
]
