"""What it costs to check, score and evaluate a small circuit of a deep model, in plain passes.

    python -m benchmarks.circuits [--layers N] [--prompts N] [--edges N] [--only ROW ...]

A plain pass is the model's own on the clean prompts, logits at all positions included. Costs are
the operations of all matrix products, counted, and the time, both as multiples of that pass. By
default the model has 30 layers of 9 heads with 3 key/value heads, a width of 576, a vocabulary of
49,152 tokens, and random weights; there are 16 prompts of 19 tokens. Results of all rows, with
these sizes, go to docs/performance.md.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import LlamaForCausalLM

import circuitfind as cf
from benchmarks.page import write_block
from benchmarks.setting import SMOLLM2, random_llama, random_pairs
from circuitfind.engine.checks import check_limits
from circuitfind.evaluation.assess import QUICK, USUAL, Subject, assess
from circuitfind.problem import Problem

Cost = tuple[float, float]
"""Operations and seconds."""


def main() -> None:
    """Measure, print, and write docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("layers", 30), ("prompts", 16), ("edges", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="*", help="which rows, by their first word")
    given = parser.parse_args()
    hf, problem = random_problem(given.layers, given.prompts)
    found = measure(hf, problem, given.edges, given.only)
    if all(value == parser.get_default(name) for name, value in vars(given).items()):
        write_block("circuits", table(found))


def random_problem(n_layers: int, n_prompts: int) -> tuple[LlamaForCausalLM, Problem]:
    """Return a model with random weights, and a problem about it."""
    size = replace(SMOLLM2, n_layers=n_layers, n_prompts=n_prompts)
    hf = random_llama(size)
    return hf, cf.make_problem(cf.load_model(hf), random_pairs(size), metric="logit-difference")


def measure(
    hf: LlamaForCausalLM, problem: Problem, n_edges: int, only: list[str] | None
) -> dict[str, Cost]:
    """Return the cost of each command as a multiple of a plain pass."""
    model, prompts = problem.model, problem.prompts
    plain = cost(lambda: model.own_logits(prompts.clean, prompts.real))
    there_and_back = cost(lambda: plain_gradient(hf, problem))
    print(f"a plain pass: {plain[0]:.3g} operations, {plain[1]:.2f} s", flush=True)
    print(f"forward and back: {there_and_back[0] / plain[0]:.2f} plain passes", flush=True)
    engine = cf.IncrementalEngine(problem)
    search = cf.discover(problem, "eap", n_edges=n_edges, walk="greedy")
    circuit = search.circuit
    rows: dict[str, Callable[[], Any]] = {
        "engine made ready": lambda: cf.IncrementalEngine(problem),
        "checks of both limits": lambda: check_limits(engine),
        "scorecard": lambda: cf.scorecard(engine, circuit),
        "evaluate --quick": lambda: assess(Subject(circuit, problem), QUICK),
        "evaluate": lambda: assess(Subject(circuit, problem), USUAL),
        "discover --method eap": lambda: cf.discover(problem, "eap", n_edges=n_edges),
    }
    found = {"a pass forward and one back": over(there_and_back, plain)}
    for name, run in rows.items():
        if only and name not in only and name.split()[0] not in only:
            continue
        found[name] = over(cost(run), plain)
        print(f"{name}: {found[name][0]:.2f} plain passes, time {found[name][1]:.2f}", flush=True)
    return found


def plain_gradient(hf: LlamaForCausalLM, problem: Problem) -> None:
    """Run from the embeddings to a logit and back, weights frozen: what any gradient takes."""
    embedded = hf.get_input_embeddings()(problem.prompts.clean).requires_grad_()
    logits = hf(inputs_embeds=embedded).logits
    torch.autograd.grad(logits[:, -1, 5].sum(), embedded)


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products; those of gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # noqa: ANN204
        result = function(*args, **(kwargs or {}))
        if (formula := flop_registry.get(function.overloadpacket)) is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def cost(run: Callable[[], Any]) -> Cost:
    """Return the operations of all matrix products of a run, and its seconds."""
    started = time.perf_counter()
    with Operations() as counted:
        run()
    return counted.total, time.perf_counter() - started


def over(one: Cost, plain: Cost) -> Cost:
    """Return a cost as a multiple of another."""
    return one[0] / plain[0], one[1] / plain[1]


def table(found: dict[str, Cost]) -> str:
    """Return the Markdown table."""
    rows = [f"| {name} | {cost[0]:.3g} | {cost[1]:.3g} |" for name, cost in found.items()]
    return "\n".join(["| | operations | time |", "|---|--:|--:|", *rows])


if __name__ == "__main__":
    main()
