"""Search a model of 1.1 billion parameters in bfloat16: what it takes in memory and in time.

    python -m benchmarks.large [--prompts N] [--share S] [--folder DIRECTORY]

The model has the shape of TinyLlama (22 layers, 32 query and 4 key/value heads, width 2,048, MLPs
of 5,632 neurons, vocabulary 32,000) and random weights: a file of 2.2 GB. It is written once, then
loaded and searched by a process of its own: attribution keeps a small share of all edges, and ACDC
tests these. After each step that process says how much memory it holds and what it held at most;
both count the pages of the model's file that the system has mapped. Written to docs/performance.md.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory import peak, resident
from benchmarks.page import ROOT, write_block

Row = dict[str, Any]

WIDTHS: dict[str, int] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
}
"""The shape of TinyLlama-1.1B, as the configurations of Llama name its sizes."""


def main(arguments: list[str] | None = None) -> None:
    """Write the model unless it is there, search it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.001, help="of all edges, to be tested")
    parser.add_argument("--folder", type=Path, help="where the model is kept; else nowhere")
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.search:
        print(json.dumps(searched(given.folder, given.prompts, given.share)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "config.json").is_file():
            write_model(folder)
        words = ("--folder", folder, "--prompts", given.prompts, "--share", given.share)
        command = [sys.executable, "-m", "benchmarks.large", *map(str, words), "--search"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    write_block("large", table(json.loads(done.stdout.splitlines()[-1])))


def write_model(folder: Path, widths: dict[str, int] = WIDTHS) -> None:
    """Write a model of Llama's architecture with random weights in bfloat16, and a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from circuitfind.models.zoo.training import word_tokenizer
    from circuitfind.tasks.corpus import vocabulary_words

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        config = LlamaConfig(**widths, max_position_embeddings=64, initializer_range=0.03)
        LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    word_tokenizer(vocabulary_words()).save_pretrained(folder)


def searched(folder: Path, n_prompts: int, share: float) -> list[Row]:
    """Load a model, search it and measure the circuit; return a row for each step."""
    import torch

    import circuitfind as cf

    rows: list[Row] = []

    def step(name: str, run: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - started
        rows.append(
            {"step": name, "seconds": seconds, "held": resident(), "peak": max(peak(), resident())}
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        return result

    step("circuitfind imported", lambda: torch.zeros(1))
    model = step("model loaded and checked", lambda: cf.load_model(folder))
    problem = cf.make_problem(model, "ioi", n_prompts=n_prompts, metric="logit-difference")
    n_edges = problem.graph.n_edges
    scored = step("eap", lambda: cf.discover(problem, "eap", n_edges=n_edges))
    shortlist = math.ceil(share * n_edges)
    sizes = sorted((abs(each.score) for each in scored.decisions), reverse=True)
    threshold = sizes[shortlist // 2]
    found = step(
        "hybrid: eap, then acdc",
        lambda: cf.discover(problem, "hybrid", share=share, threshold=threshold, steps=1),
    )
    step("scorecard", lambda: cf.scorecard(problem, found.circuit))
    tested = sum(each.reason == "tested" for each in found.decisions)
    rows[-2]["step"] += (
        f" on {shortlist:,} of {n_edges:,} edges: {tested:,} tested, {found.circuit.n_edges:,} kept"
    )
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows for the page."""
    lines = ["| step | seconds | memory held, GB | most until then, GB |", "|---|--:|--:|--:|"]
    lines += [
        f"| {row['step']} | {row['seconds']:.0f} | {row['held'] / 1e9:.1f} | "
        f"{row['peak'] / 1e9:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
