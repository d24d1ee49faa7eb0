"""Check and time searches, attribution and patching on a GPU, part by part, in eight minutes.

    python -m benchmarks.gpu FOLDER [--device cuda] [--only PART ...] [--minutes 7]
    python -m benchmarks.gpu FOLDER --page

Trained models are searched on the CPU and on the GPU, and everything that comes out is compared.
Models of random weights at the shapes of GPT-2 small and SmolLM2 are then searched with decisions
fixed in advance (`benchmarks/setting.py`), and attributed. Each part has its own time limit. The
folder receives tables (`gpu.md`) and numbers (`gpu.json`) after every part, so that nothing is lost
where the time ends; `--page` puts the tables of an earlier run into docs/performance.md. Where no
setting of torch allows TF32, matrix products keep all digits of float32; the settings are printed.
"""

import argparse
import json
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.setting import (
    RIGHT,
    SMOLLM2,
    WRONG,
    Size,
    fixed_search,
    random_gpt2,
    random_llama,
    random_pairs,
)
from circuitfind.methods.attribution import Limits, Place, attribute
from circuitfind.problem import Problem

Row = dict[str, Any]

THRESHOLD = 0.02
IG_STEPS = 3
_FULL_PASSES = 3
"""How many full passes are timed; brute force needs one for each edge."""


class TimeUpError(Exception):
    """The time of a part is up."""


@dataclass
class Report:
    """What was measured so far, written after every part.

    Attributes:
        folder: Where to write.
        environment: The device, the versions and the settings.
        parts: The rows of every part.
        curves: Of every search, by the name of its part, tests and seconds on the way.
    """

    folder: Path
    environment: dict[str, str]
    parts: dict[str, list[Row]] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, title: str, row: Row) -> None:
        """Add a row to a table, print it and write everything."""
        self.parts.setdefault(title, []).append(row)
        print(
            f"{title}: " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "gpu.json").write_text(json.dumps(vars(self), indent=1, default=str))
        (self.folder / "gpu.md").write_text(tables(self.environment, self.parts))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--minutes", type=float, default=7, help="of all parts together")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    given = parser.parse_args(arguments)
    if given.page:
        found = json.loads((given.folder / "gpu.json").read_text())
        write_block("gpu", tables(found["environment"], found["parts"]).rstrip())
        return
    report = Report(given.folder, environment(given.device))
    setting = Setting(given.device, tiny=given.tiny)
    print(report.environment, flush=True)
    end = time.monotonic() + 60 * given.minutes
    for name in given.only:
        part = PARTS[name]
        seconds = min(part.seconds, end - time.monotonic())
        run_part(name, part.run, setting, report, seconds)


def run_part(name: str, run: "Run", setting: "Setting", report: Report, seconds: float) -> None:
    """Run a part for so many seconds at most; an error is reported and the next part follows."""
    started = time.monotonic()
    try:
        if seconds <= 0:
            raise TimeUpError
        with time_limit(seconds):
            run(setting, report)
    except TimeUpError:
        report.add("Not finished", {"part": name, "why": f"its {max(0, seconds):.0f} s were up"})
    except Exception as error:
        # Whatever it is, the other parts are still worth having.
        traceback.print_exc()
        report.add("Not finished", {"part": name, "why": f"{type(error).__name__}: {error}"})
    finally:
        if setting.device != "cpu":
            torch.cuda.empty_cache()
    print(f"({name}: {time.monotonic() - started:.0f} s)", flush=True)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeUpError` in the block when its time is up."""

    def stop(number: int, frame: object) -> None:
        raise TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def environment(device: str) -> dict[str, str]:
    """Return what the figures depend on besides the package."""
    return {
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "float32 matrix products": torch.get_float32_matmul_precision(),
        "TF32 allowed": str(torch.backends.cuda.matmul.allow_tf32),
    }


@dataclass(frozen=True)
class Setting:
    """Where to compute, and the sizes."""

    device: str
    tiny: bool = False

    def gpt2(self) -> tuple[Any, Problem]:
        """Return a model of GPT-2 small's shape with 200 prompts of 16 tokens, and a problem."""
        size = Size(2, 2, None, 16, 50, 3, 8) if self.tiny else Size(n_prompts=200)
        return self._made(random_gpt2(size), size)

    def smollm2(self) -> tuple[Any, Problem]:
        """Return a model of SmolLM2's shape with 64 prompts of 19 tokens, and a problem."""
        size = Size(2, 4, 2, 16, 50, 3, 8) if self.tiny else replace(SMOLLM2, n_prompts=64)
        return self._made(random_llama(size), size)

    def _made(self, hf: Any, size: Size) -> tuple[Any, Problem]:
        hf = hf.to(self.device)
        problem = cf.make_problem(cf.load_model(hf), random_pairs(size), metric="logit-difference")
        return hf, problem

    def equals(self) -> Iterator[tuple[str, Problem, Problem]]:
        """Yield questions about small models, each on the CPU and on the device."""
        if self.tiny:
            here, there = (replace(self, device=device).gpt2()[1] for device in self._both)
            yield "random", here, there
            return
        for name in ("gpt-4l", "llama-4l"):
            here, there = (
                cf.make_problem(cf.load_model(name, device=device), "ioi", n_prompts=16)
                for device in self._both
            )
            yield name, here, there

    @property
    def _both(self) -> tuple[str, str]:
        return "cpu", self.device


Run = Callable[[Setting, Report], None]


@dataclass(frozen=True)
class Part:
    """A part, and how many seconds it may take."""

    run: Run
    seconds: float


# ---------------------------------------------------------------------------------- equality


def equality(setting: Setting, report: Report) -> None:
    """Compare decisions, effects, scores and patches on small trained models."""
    ways: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("acdc", "kl", {"threshold": THRESHOLD}),
        ("acdc", "logit-difference", {"threshold": THRESHOLD}),
        ("exact", "kl", {"n_edges": 40}),
        ("eap", "logit-difference", {"n_edges": 40}),
        ("eap-ig", "logit-difference", {"n_edges": 40, "steps": IG_STEPS}),
    )
    for model, here, there in setting.equals():
        for method, metric, options in ways:
            found = [
                cf.discover(with_metric(problem, metric), method, **options)
                for problem in (here, there)
            ]
            rows = list(zip(found[0].decisions, found[1].decisions, strict=True))
            both = [[size_of(decision) for decision in pair] for pair in rows]
            report.add(
                "Equality with the CPU",
                {
                    "model": model,
                    "what": f"{method}, {metric}",
                    "compared": len(rows),
                    "decided otherwise": sum(
                        (one.edge, one.kept) != (other.edge, other.kept) for one, other in rows
                    ),
                    "largest": max(abs(one) for one, _ in both),
                    "largest difference": max(abs(one - other) for one, other in both),
                },
            )
        compare_patches(model, here, there, report)


def size_of(decision: Any) -> float:
    """Return an edge's effect or score; 0 for an edge that was cut without either."""
    return decision.effect if decision.effect is not None else decision.score or 0.0


def compare_patches(model: str, here: Problem, there: Problem, report: Report) -> None:
    """Compare the values of all patches of heads and blocks."""
    for sites in ("block", "head"):
        one, other = (cf.patch(problem, sites).values for problem in (here, there))
        differences = [(one[site] - other[site].cpu()).abs().max() for site in one]
        report.add(
            "Equality with the CPU",
            {
                "model": model,
                "what": f"patching, {sites}",
                "compared": sum(one[site][..., 0].numel() for site in one),
                "decided otherwise": "",
                "largest": float(max(one[site].abs().max() for site in one)),
                "largest difference": float(max(differences)),
            },
        )


# ---------------------------------------------------------------------------------- searches


def searched(made: Callable[[Setting], tuple[Any, Problem]], metric: str) -> Run:
    """Return a part that searches with decisions fixed in advance."""

    def run(setting: Setting, report: Report) -> None:
        _, problem = made(setting)
        with PeakMemory(setting.device) as memory:
            started = time.perf_counter()
            engine = cf.IncrementalEngine(with_metric(problem, metric))
            prepared = time.perf_counter() - started
            found, curve = timed_search(engine)
        curve_name = f"{made.__name__} {metric}"
        report.curves[curve_name] = curve
        full = full_pass_seconds(engine)
        report.add(
            "Searches",
            {
                "shape": made.__name__,
                "metric": metric,
                "prompts": "{} of {} tokens".format(*problem.prompts.clean.shape),
                **found,
                "ms per test": 1e3 * found["seconds"] / max(1, found["tested"]),
                "full pass / test": full * found["tested"] / found["seconds"],
                "made ready, s": prepared,
                "memory beside the model, GB": memory.gigabytes,
            },
        )

    return run


def with_metric(problem: Problem, metric: str) -> Problem:
    """Return the same question with another metric."""
    return replace(problem, metric=cf.METRICS.find(metric), default_metric=None)


def timed_search(engine: cf.IncrementalEngine) -> tuple[Row, list[tuple[int, float]]]:
    """Return what a search took, and tests and seconds on the way; also where its time is up."""
    tested = kept = done = 0
    drift: Any = "not finished"
    curve = []
    started = time.perf_counter()
    try:
        for progress in fixed_search(engine):
            done = progress.done
            tested += sum(decision.reason == "tested" for decision in progress.decisions)
            kept += sum(decision.kept for decision in progress.decisions)
            drift = drift if progress.drift is None else progress.drift
            curve.append((tested, time.perf_counter() - started))
    except TimeUpError:
        pass
    return {
        "edges decided": f"{done} of {engine.graph.n_edges}",
        "tested": tested,
        "kept": kept,
        "drift": drift,
        "seconds": time.perf_counter() - started,
    }, curve


def full_pass_seconds(engine: cf.IncrementalEngine) -> float:
    """Return the seconds of a pass from scratch, which brute force needs for every edge."""
    times = []
    for _ in range(_FULL_PASSES):
        started = time.perf_counter()
        with torch.no_grad():
            engine.readout.loss(engine.recomputed(engine.graph.edge_mask, "replaced"))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def on_the_cpu(setting: Setting, report: Report) -> None:
    """Search on the CPU, for as long as there is time, and compare where it got to."""
    _, problem = replace(setting, device="cpu").gpt2()
    for metric in ("kl", "logit-difference"):
        curve = report.curves.get(f"gpt2 {metric}")
        if not curve:
            continue
        with_time(setting, problem, metric, curve, report)


def with_time(
    setting: Setting,
    problem: Problem,
    metric: str,
    curve: list[tuple[int, float]],
    report: Report,
) -> None:
    """Compare the seconds of the same first tests."""
    engine = cf.IncrementalEngine(with_metric(problem, metric))
    started, here = time.perf_counter(), 0.0
    tested = 0
    for progress in fixed_search(engine):
        tested += sum(decision.reason == "tested" for decision in progress.decisions)
        here = time.perf_counter() - started
        if here > (1 if setting.tiny else 20):
            break
    there = next((seconds for tests, seconds in curve if tests >= tested), None)
    report.add(
        "The same search on the CPU beside the GPU",
        {
            "shape": "gpt2",
            "metric": metric,
            "threads": torch.get_num_threads(),
            "first tests": tested,
            "CPU, s": here,
            "GPU, s": there,
            "CPU / GPU": here / there if there else "not reached",
        },
    )


# ------------------------------------------------------------------------------- attribution


def attributed(made: Callable[[Setting], tuple[Any, Problem]]) -> Run:
    """Return a part that scores edges, beside a plain pass forward and back."""

    def run(setting: Setting, report: Report) -> None:
        hf, problem = made(setting)
        n_prompts = len(problem.prompts)
        limits = Limits(n_prompts)
        clean = [Place(share=1.0, weight=1.0)]
        path = [Place(share=k / IG_STEPS, weight=1 / IG_STEPS) for k in range(IG_STEPS, 0, -1)]
        ways: dict[str, Callable[[], Any]] = {
            "plain pass": lambda: plain_pass(hf, problem),
            "eap": lambda: list(attribute(problem, clean, limits)),
            f"eap-ig, {IG_STEPS} steps": lambda: list(attribute(problem, path, limits)),
        }
        plain = None
        for name, way in ways.items():
            way()
            with PeakMemory(setting.device) as memory:
                seconds = timed(way, setting.device)
            plain = plain or seconds
            report.add(
                "Attribution",
                {
                    "shape": made.__name__,
                    "prompts": n_prompts,
                    "what": name,
                    "ms": 1e3 * seconds,
                    "time / plain": seconds / plain,
                    "memory beside the model, GB": memory.gigabytes,
                },
            )

    return run


def plain_pass(hf: Any, problem: Problem) -> None:
    """Run the model forward to a logit difference and back to its embeddings."""
    embedded = hf.get_input_embeddings()(problem.prompts.clean).requires_grad_()
    logits = hf(inputs_embeds=embedded, logits_to_keep=1, use_cache=False).logits[:, -1]
    torch.autograd.grad((logits[:, WRONG] - logits[:, RIGHT]).sum(), embedded)


def timed(run: Callable[[], Any], device: str) -> float:
    """Return the median seconds of three runs, the device's work included."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


class PeakMemory:
    """The most memory that tensors take on the device at a time in a block, beyond those before it.

    Attributes:
        gigabytes: That, in 1e9 bytes; None on the CPU, where torch does not count it.
    """

    def __init__(self, device: str) -> None:
        self._counted = device != "cpu"
        self.gigabytes: float | None = None

    def __enter__(self) -> "PeakMemory":
        if self._counted:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error: object) -> None:
        if self._counted:
            self.gigabytes = (torch.cuda.max_memory_allocated() - self._before) / 1e9


# ------------------------------------------------------------------------------------ tables


def tables(environment: dict[str, str], parts: dict[str, list[Row]]) -> str:
    """Return everything as tables of Markdown."""
    blocks = [", ".join(f"{name}: {value}" for name, value in environment.items())]
    for title, rows in parts.items():
        header = list(rows[0])
        lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(shown(row.get(name)) for name in header)} |" for row in rows]
        blocks.append("\n".join([f"{title}:", "", *lines]))
    return "\n\n".join(blocks) + "\n"


def shown(value: object) -> str:
    """Return a value as the text of a cell."""
    if value is None:
        return "not measured"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


PARTS = {
    "equality": Part(equality, 90),
    "gpt2-kl": Part(searched(Setting.gpt2, "kl"), 80),
    "gpt2-answers": Part(searched(Setting.gpt2, "logit-difference"), 60),
    "smollm2-kl": Part(searched(Setting.smollm2, "kl"), 90),
    "smollm2-answers": Part(searched(Setting.smollm2, "logit-difference"), 60),
    "gpt2-attribution": Part(attributed(Setting.gpt2), 30),
    "smollm2-attribution": Part(attributed(Setting.smollm2), 30),
    "cpu": Part(on_the_cpu, 80),
}


if __name__ == "__main__":
    main()
