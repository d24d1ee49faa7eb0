"""Memory and time of attribution, and of a step of training, against a plain pass forward and back.

    python -m benchmarks.attribution [--layers N] [--heads N] [--prompts N] [--tokens N] [--curve]

The model has the shape of GPT-2 small and random weights. The plain pass is the model's own, from
its embeddings to a logit difference at the last position and back to the embeddings, with frozen
weights: the least that anything with a gradient must do. Memory is the peak of all tensors alive,
counted as they are made and freed, beyond the model's weights. Operations are those of all matrix
products. All figures are ratios to the plain pass. Targets: at most 1.5 above plain, and at most 2
of time per gradient. Results go to docs/performance.md.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.setting import RIGHT, WRONG, Size, random_gpt2, random_pairs
from circuitfind.evaluation.cost import peak_bytes
from circuitfind.methods.attribution import Limits, Place, attribute
from circuitfind.methods.training import Trained
from circuitfind.problem import Problem

D_HEAD = 64
TRAINED = ("mattr", "ugs", "edge-pruning", "subnetwork-probing")
REPEATS = 3


def main() -> None:
    """Measure, print, and write docs/performance.md if all sizes are those of the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("layers", 12), ("heads", 12), ("prompts", 16), ("tokens", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--curve", action="store_true", help="vary one size at a time, too")
    parser.add_argument("--memory", action="store_true", help="leave out the times")
    given = vars(parser.parse_args())
    curve, timed = given.pop("curve"), not given.pop("memory")
    default = given == {n: parser.get_default(n) for n in given}
    header = HEADER if timed else _MEMORY
    rows = [header, *measure(given, timed=timed)]
    if default:
        write_block("attribution", table(rows))
    if curve:
        rows = [header]
        for name, values in (
            ("layers", (4, 8, 12)),
            ("heads", (4, 8, 12)),
            ("tokens", (16, 32, 64)),
        ):
            for value in values:
                label, *cells = measure({**given, name: value}, only="eap", timed=timed)[0]
                rows.append((f"{label}, {value} {name}", *cells))
        write_block("attribution-curve", table(rows))


_MEMORY = ("", "operations / plain", "peak / plain", "above plain / plain")
HEADER = (*_MEMORY, "time / plain", "per gradient")


def measure(sizes: dict[str, int], only: str = "", *, timed: bool = True) -> list[tuple[str, ...]]:
    """Return a row for every way of attribution, or for one."""
    hf, problem = build(Size(**_named(sizes)))
    plain = lambda: plain_pass(hf, problem)  # noqa: E731
    # Attention is compared with the model's own when a prompt length is met first.
    list(attribute(problem, [Place(share=1.0, weight=1.0)], Limits(sizes["prompts"])))
    fewest, least = operations(plain), peak_bytes(plain)
    seconds = median_seconds(plain) if timed else math.nan
    print(f"{sizes}: plain pass {least / 2**20:.0f} MiB, {seconds:.2f} s", flush=True)
    rows = []
    for name, n_gradients, run in ways(problem, sizes["prompts"]):
        if only in ("", name):
            most = peak_bytes(run)
            cells = [operations(run) / fewest, most / least, (most - least) / least]
            if timed:
                taken = median_seconds(run) / seconds
                cells += [taken, taken / n_gradients]
            rows.append((name, *(f"{cell:.2f}" for cell in cells)))
            print_row(*rows[-1])
    return rows


def ways(problem: Problem, n_prompts: int) -> list[tuple[str, int, Callable[[], Any]]]:
    """Return names, numbers of gradients, and what runs them."""

    def attributed(places: list[Place], limits: Limits) -> Callable[[], Any]:
        return lambda: list(attribute(problem, places, limits))

    clean = [Place(share=1.0, weight=1.0)]
    path = [Place(share=k / 3, weight=1 / 3) for k in (3, 2, 1)]
    return [
        ("eap", 1, attributed(clean, Limits(n_prompts))),
        ("eap-ig, 3 steps", 3, attributed(path, Limits(n_prompts))),
        ("eap, checkpoint", 1, attributed(clean, Limits(n_prompts, checkpoint=True))),
        ("eap, 4 prompts at a time", 1, attributed(clean, Limits(4))),
        ("cf.discover, eap", 1, lambda: cf.discover(problem, "eap", n_edges=200)),
        ("cf.discover, hisp", 1, lambda: cf.discover(problem, "hisp", n_edges=200)),
        ("information-flow", 1, lambda: cf.discover(problem, "information-flow", n_edges=200)),
        *((f"{name}, a step", 1, step_of(problem, name, n_prompts)) for name in TRAINED),
    ]


def step_of(problem: Problem, name: str, n_prompts: int) -> Callable[[], Any]:
    """Return a step of a training on all prompts."""
    engine, method = cf.IncrementalEngine(problem), cf.METHODS.find(name)
    assert isinstance(method, Trained)
    training = method.training(engine, method.options(batch=n_prompts))
    return lambda: training.step(0, torch.Generator().manual_seed(0))


def _named(sizes: dict[str, int]) -> dict[str, int]:
    named = {f"n_{name}": value for name, value in sizes.items()}
    return {**named, "d_model": sizes["heads"] * D_HEAD}


def build(size: Size) -> tuple[Any, Problem]:
    """Return a model with random weights, and a problem about random prompts."""
    hf = random_gpt2(size)
    metric = "logit-difference"
    return hf, cf.make_problem(cf.load_model(hf), random_pairs(size), metric=metric)


def plain_pass(hf: Any, problem: Problem) -> Tensor:
    """Run the model forward and back, with logits at the last position alone."""
    embedding = hf.transformer.wte(problem.prompts.clean).requires_grad_()
    logits = hf(inputs_embeds=embedding, logits_to_keep=1, use_cache=False).logits[:, -1]
    (gradient,) = torch.autograd.grad((logits[:, WRONG] - logits[:, RIGHT]).sum(), embedding)
    return gradient


def operations(run: Callable[[], Any]) -> int:
    """Return the operations of all matrix products of a run, those added in place included."""

    def added(_: Any, left: Sequence[int], right: Sequence[int], **__: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    mapping = {torch.ops.aten.addmm_: added}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return counter.get_total_flops()


def median_seconds(run: Callable[[], Any]) -> float:
    """Return the median time of some runs."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def print_row(*cells: str) -> None:
    """Print cells below one another."""
    print(f"{cells[0]:26}" + "".join(f"{cell:>22}" for cell in cells[1:]))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


if __name__ == "__main__":
    main()
