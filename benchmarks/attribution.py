"""Memory and time of attribution against a plain forward-and-backward pass.

    python benchmarks/attribution.py [--layers N] [--heads N] [--prompts N] [--tokens N] [--curve]

The model has the shape of GPT-2 small and random weights. The plain pass is the model's own, from
its embeddings to a logit difference at the last position and back to the embeddings, with frozen
weights: the least that anything with a gradient must do. Memory is the peak of all tensors alive,
counted as they are made and freed, beyond the model's weights. All figures are ratios to the plain
pass. Targets: at most 1.5 above plain, and at most 2 of time per gradient.
"""

import argparse
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import GPT2Config, GPT2LMHeadModel

from circuitfind.graph import Graph
from circuitfind.methods.attribution import Limits, Place, attribute
from circuitfind.metrics import find_metric
from circuitfind.models.base import ResidualModel
from circuitfind.models.loading import load_model
from circuitfind.problem import Problem, assemble
from circuitfind.prompts import Pair, collate

D_HEAD, D_VOCAB = 64, 50257
REPEATS = 3


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made within it that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # noqa: ANN204
        before = {leaf.untyped_storage()._cdata for leaf in _tensors((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in before and key not in self._seen:
                self._seen.add(key)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("layers", 12), ("heads", 12), ("prompts", 16), ("tokens", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--curve", action="store_true", help="vary one size at a time, too")
    sizes = vars(parser.parse_args())
    curve = sizes.pop("curve")
    print_row("what", *HEADER)
    measure(sizes)
    if curve:
        for name, values in (("layers", (4, 8)), ("heads", (4, 8)), ("tokens", (32, 64))):
            for value in values:
                print(f"\n{name} = {value}")
                measure({**sizes, name: value})


HEADER = ("peak / plain", "above plain / plain", "time / plain", "per gradient")


def measure(sizes: dict[str, int]) -> None:
    """Print a row for every way of attribution."""
    hf, problem = build(**sizes)
    plain = lambda: plain_pass(hf, problem)  # noqa: E731
    # Attention is compared with the model's own when a prompt length is met first.
    list(attribute(problem, [Place(share=1.0, weight=1.0)], Limits(sizes["prompts"])))
    least, seconds = peak(plain), median_seconds(plain)
    print(
        f"plain pass: {least / 2**20:.0f} MiB; largest tensor an edges-by-prompts method holds: "
        f"{len(problem.graph.writers) * stream_bytes(problem) / 2**20:.0f} MiB of differences"
    )
    clean = [Place(share=1.0, weight=1.0)]
    path = [Place(share=k / 3, weight=1 / 3) for k in (3, 2, 1)]
    for name, places, limits in (
        ("eap", clean, Limits(sizes["prompts"])),
        ("eap-ig, 3 steps", path, Limits(sizes["prompts"])),
        ("eap, checkpoint", clean, Limits(sizes["prompts"], checkpoint=True)),
        ("eap, 4 prompts at a time", clean, Limits(4)),
    ):
        run = lambda places=places, limits=limits: list(attribute(problem, places, limits))  # noqa: E731
        most, taken = peak(run), median_seconds(run) / seconds
        print_row(
            name,
            f"{most / least:.2f}",
            f"{(most - least) / least:.2f}",
            f"{taken:.2f}",
            f"{taken / len(places):.2f}",
        )


def build(layers: int, heads: int, prompts: int, tokens: int) -> tuple[Any, Problem]:
    """Return a model with random weights, and a problem about random prompts."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers, n_head=heads, n_embd=heads * D_HEAD, vocab_size=D_VOCAB, n_positions=1024
    )
    hf = GPT2LMHeadModel(config).eval().requires_grad_(requires_grad=False)
    model = load_model(hf)
    generator = torch.Generator().manual_seed(0)
    pairs = [
        Pair(
            torch.randint(D_VOCAB, (tokens,), generator=generator).tolist(),
            torch.randint(D_VOCAB, (tokens,), generator=generator).tolist(),
            answers=[[5]],
            wrong_answers=[[9]],
        )
        for _ in range(prompts)
    ]
    assert isinstance(model, ResidualModel)
    problem = assemble(
        model, collate(pairs), find_metric("logit-difference"), graph=Graph(model.shape)
    )
    return hf, problem


def plain_pass(hf: Any, problem: Problem) -> Tensor:
    """Run the model forward and back, with logits at the last position alone."""
    embedding = hf.transformer.wte(problem.prompts.clean).requires_grad_()
    logits = hf(inputs_embeds=embedding, logits_to_keep=1, use_cache=False).logits[:, -1]
    (gradient,) = torch.autograd.grad((logits[:, 9] - logits[:, 5]).sum(), embedding)
    return gradient


def stream_bytes(problem: Problem) -> int:
    """Return the size of one residual stream of all prompts."""
    return problem.prompts.clean.numel() * problem.model.shape.d_model * 4


def peak(run: Callable[[], Any]) -> int:
    """Return the peak of all tensors that are alive while something runs."""
    with PeakBytes() as counted:
        run()
    return counted.peak


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


if __name__ == "__main__":
    main()
