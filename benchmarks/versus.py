"""Compare searches at the shape of GPT-2 small: brute force, our engine, auto-circuit 1.0.1.

    python benchmarks/versus.py [--rounds N] [--without-auto-circuit]

All read the same weights and prompts and run one after the other, in turns, as child processes of
this one; medians over the rounds are written to docs/performance.md. auto-circuit gets a virtual
environment of its own under .bench/. Its whole search takes hours, so single tests are timed in
every layer and weighted by the number of edges. Its effects must agree with ours.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.page import ROOT, write_block
from benchmarks.setting import Size, write_setting
from circuitfind.threads import wait_a_moment

HERE = Path(__file__).parent
MEASURED = ROOT / ".bench" / "versus"
SAMPLE = ["m10->logits", "a8.h6->a10.h0.q", "a4.h11->a5.h5.k", "embed->a0.h1.v", "m5->m8"]
"""Edges whose effects are compared."""

ALLOWED = 1e-4
"""Largest difference of effects, in nats; another definition would show in the second digit."""

Result = dict[str, Any]


def main() -> None:
    """Run all in turns and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--without-auto-circuit", action="store_true")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier call measured")
    given = parser.parse_args()
    wait_a_moment()
    other = None if given.without_auto_circuit else environment()
    if not given.resume:
        shutil.rmtree(MEASURED, ignore_errors=True)
    MEASURED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_setting(folder, Size())
        counted = once("operations", lambda: ours(folder, "logit-difference", "--count"))
        rounds = [one_round(folder, other, number) for number in range(given.rounds)]
    result = medians(rounds) | {"operations": counted}
    write_block("versus", "\n".join([table(result), *spread(rounds)]))


def environment() -> Path:
    """Make auto-circuit's virtual environment, or find it; return its Python."""
    python = ROOT / ".bench" / "auto-circuit" / "bin" / "python"
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--requirement"]
        subprocess.run([*install, HERE / "auto-circuit.txt"], check=True)
    return python


def one_round(folder: Path, other: Path | None, number: int) -> Result:
    """Run each once."""
    metrics = ("logit-difference", "kl")
    result = {
        metric: once(f"{metric}-{number}", partial(ours, folder, metric)) for metric in metrics
    }
    if other is not None:
        words = ("auto_circuit_worker.py", str(folder), "--sample", *SAMPLE)
        result["auto-circuit"] = once(f"auto-circuit-{number}", partial(worker, other, *words))
    return result


def once(name: str, measure: Callable[[], Result]) -> Result:
    """Measure and write down, or read what was written down."""
    file = MEASURED / f"{name}.json"
    if not file.exists():
        file.write_text(json.dumps(measure(), indent=1))
    return json.loads(file.read_text())


def ours(folder: Path, metric: str, *more: str) -> Result:
    """Run our worker."""
    sample = [] if more else ["--sample", *SAMPLE]
    return worker(Path(sys.executable), "engine_worker.py", str(folder), metric, *more, *sample)


def worker(python: Path, script: str, *arguments: str) -> Result:
    """Run a worker and read the JSON that it prints last."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, HERE / script, *arguments], check=True, stdout=subprocess.PIPE, env=variables
    )
    return json.loads(done.stdout.decode().splitlines()[-1])


def medians(rounds: list[Result]) -> Result:
    """Return the median of every figure over the rounds."""

    def middle(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: middle([value[key] for value in values]) for key in values[0]}
        return statistics.median(values)

    return middle(rounds)


def spread(rounds: list[Result]) -> list[str]:
    """Say how far the rounds are apart: a machine shared with others changes its speed."""
    if len(rounds) == 1 or "auto-circuit" not in rounds[0]:
        return []

    def each(metric: str) -> str:
        ratios = (
            one["auto-circuit"]["seconds_per_test"] / one[metric]["seconds_per_test"]
            for one in rounds
        )
        return ", ".join(f"{ratio:.0f}x" for ratio in ratios)

    return [
        f"These are medians of {len(rounds)} rounds; auto-circuit per tested edge, round by round: "
        f"{each('logit-difference')} (answer metric) and {each('kl')} (KL)."
    ]


def disagreement(result: Result) -> float:
    """Return the largest difference of effects, in nats, and stop where it is no rounding."""
    found = result["kl"]["effects"]
    theirs = result["auto-circuit"]["effects"]
    edge = max(theirs, key=lambda name: abs(found[name] - theirs[name]))
    difference = abs(found[edge] - theirs[edge])
    if difference > ALLOWED:
        raise SystemExit(f"{edge}: auto-circuit has an effect of {theirs[edge]}, we {found[edge]}")
    return difference


def table(result: Result) -> str:
    """Return the rows for the page, as ratios to our engine."""
    answer, kl = result["logit-difference"], result["kl"]
    brute_force = [ours["brute_force_seconds_per_edge"] for ours in (answer, kl)]
    rows = [
        "| | per tested edge, answer metric | per tested edge, KL | whole search, answer metric "
        "| whole search, KL | memory above the loaded model |",
        "|---|---|---|---|---|---|",
        f"| our engine | 1 | 1 | 1 | 1 | {_gigabytes(answer)}; with KL {_gigabytes(kl)} |",
        _row("every edge by a full pass", brute_force, answer, kl),
    ]
    agreement = []
    if other := result.get("auto-circuit"):
        theirs = [other["seconds_per_test"]] * 2
        rows.append(_row("auto-circuit 1.0.1", theirs, answer, kl, _gigabytes(other)))
        effects = ", ".join(f"{name} {effect:.2g}" for name, effect in kl["effects"].items())
        agreement = [
            f"Effects of single edges, in nats: {effects}; auto-circuit's differ by "
            f"{disagreement(result):.1g} at most."
        ]
    rate = answer["matrix_rate"]
    floor = result["operations"]["search"] / rate / answer["seconds"]
    return "\n".join(
        [
            *rows,
            "",
            f"{answer['tests']:.0f} of {answer['edges']:.0f} edges were tested, "
            f"{answer['evaluations']:.0f} cuts evaluated, {answer['kept']:.0f} edges kept. "
            f"Drift at the end: {answer['drift']:.1g}. "
            f"The search's matrix products are {result['operations']['search'] / 1e12:.1f}e12 "
            f"operations, as many as {_passes(result):.0f} full passes; at the rate at which the "
            f"machine multiplies large matrices they alone would take {floor:.0%} of its time.",
            *agreement,
        ]
    )


def _row(
    name: str, seconds_per_edge: list[float], answer: Result, kl: Result, memory: str = ""
) -> str:
    both = list(zip(seconds_per_edge, (answer, kl), strict=True))
    per_edge = [seconds / ours["seconds_per_test"] for seconds, ours in both]
    whole = [seconds * ours["edges"] / ours["seconds"] for seconds, ours in both]
    figures = " | ".join(f"{ratio:.0f}x" for ratio in (*per_edge, *whole))
    return f"| {name} | {figures} | {memory} |"


def _passes(result: Result) -> float:
    return result["operations"]["search"] / result["operations"]["full_pass"]


def _gigabytes(row: Result) -> str:
    return f"{row['peak_above_model'] / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
