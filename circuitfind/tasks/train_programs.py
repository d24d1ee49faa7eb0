"""Train the small algorithmic models of the suite `truth`.

    python -m circuitfind.tasks.train_programs OUT [NAME ...]

Their weights are learned and their circuits are known, since each reader sees only the parts of the
residual stream that it is given: every writer writes to a part of its own, and weights that would
read another part are kept at 0. (Friedman, Wettig and Chen 2023, "Learning Transformer Programs",
arXiv 2306.01128, restrict reads likewise.) In each layer stands another head with random weights,
whose part nobody reads. A model is trained on all its inputs until it is right on all of them. Of
each program the models of the first two seeds that get there are kept.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import cross_entropy

from circuitfind.granularity import head_name, heads_and_mlps
from circuitfind.graph import Reader, Writer
from circuitfind.models.compiled_sizes import read_sizes
from circuitfind.models.wiring import Wiring, sizes_of, stated

FOLDER = Path(__file__).parents[1] / "suites" / "learned"
N_MODELS, _MOST_SEEDS = 2, 10
WIDTH = 8
"""Dimensions of a head, and of what a writer writes."""

_STEPS, _RATE, _ENOUGH, _ASIDE = 10_000, 0.003, 0.003, 1

Text = tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """A program to learn, and what its readers may read.

    Attributes:
        program: What it says, in words.
        symbols: What it reads.
        outputs: What it can say.
        length: How many symbols it reads.
        says: What it says at each position of an input.
        reads: The parts of the stream that each reader sees: `token`, `position`, or a writer's.
        d_mlp: Units of the MLP of each layer; 0 for none.
        blind: The edges among them that carry only what all inputs share.
        attention: Of which positions.
    """

    program: str
    symbols: Sequence[str]
    outputs: Sequence[str]
    length: int
    says: Callable[[Text], Sequence[str]]
    reads: Mapping[str, Sequence[str]]
    _: KW_ONLY
    d_mlp: Sequence[int]
    blind: Sequence[str] = ()
    attention: str = "bidirectional"

    @property
    def edges(self) -> list[str]:
        """The edges that its readers may read along."""
        writers = {
            (("embed" if part in ("token", "position") else part), reader)
            for reader, parts in self.reads.items()
            for part in parts
        }
        return sorted(f"{writer}->{reader}" for writer, reader in writers)


def _sorted(text: Text) -> Sequence[str]:
    return sorted(text)


def _largest(text: Text) -> Sequence[str]:
    return [max(text)] * len(text)


def _unique(text: Text) -> Sequence[str]:
    return ["once" if text.count(symbol) == 1 else "again" for symbol in text]


def _sum(text: Text) -> Sequence[str]:
    return [str(sum(map(int, text)) % 5)] * len(text)


def _brackets(text: Text) -> Sequence[str]:
    ends = range(1, len(text) + 1)
    depths = [text[:end].count("(") - text[:end].count(")") for end in ends]
    lowest = itertools.accumulate(depths, min)
    return [
        "wrong" if low < 0 else "open" if depth else "balanced"
        for depth, low in zip(depths, lowest, strict=True)
    ]


LEARNED: Mapping[str, Design] = {
    "maximum": Design(
        "the largest symbol", "12345", "12345", 4, _largest,
        {"a0.h0.k": ["token"], "a0.h0.v": ["token"], "logits": ["a0.h0"]},
        d_mlp=[0],
    ),
    "sort": Design(
        "the input, the smallest first", "123", "123", 4, _sorted,
        {"a0.h0.q": ["token"], "a0.h0.k": ["token"], "a0.h0.v": ["token"], "m0": ["a0.h0"],
         "a1.h0.q": ["position"], "a1.h0.k": ["m0"], "a1.h0.v": ["token"], "logits": ["a1.h0"]},
        d_mlp=[32, 0], blind=["embed->a1.h0.q"],
    ),
    "unique": Design(
        "whether each symbol occurs once", "abc", ("once", "again"), 5, _unique,
        {"a0.h0.q": ["token"], "a0.h0.k": ["token"], "a0.h0.v": ["token"], "m0": ["a0.h0"],
         "logits": ["m0"]},
        d_mlp=[32],
    ),
    "modular-addition": Design(
        "the sum of two digits modulo 5", "01234", "01234", 2, _sum,
        {"a0.h0.k": ["position"], "a0.h0.v": ["token"], "m0": ["a0.h0"], "logits": ["m0"]},
        d_mlp=[48], blind=["embed->a0.h0.k"],
    ),
    "brackets": Design(
        "whether brackets are balanced so far", "()", ("balanced", "open", "wrong"), 6, _brackets,
        {"a0.h0.v": ["token"], "m0": ["a0.h0"], "a1.h0.v": ["m0"], "m1": ["a0.h0", "a1.h0"],
         "logits": ["m1"]},
        d_mlp=[32, 32], attention="causal",
    ),
}  # fmt: skip
"""The programs, by name."""


def wired(design: Design) -> tuple[Wiring, dict[str, Bool[Tensor, "..."]]]:
    """Return a model with no weights yet, and which weights may be learned."""
    sizes = sizes_of(
        design.symbols, design.outputs, length=design.length, n_layers=len(design.d_mlp),
        n_heads=2, d_head=WIDTH, d_mlp=list(design.d_mlp), attention=design.attention,
    )  # fmt: skip
    graph = heads_and_mlps(read_sizes({**sizes, "d_model": 1}).shape)
    writers = [writer for writer in graph.writers if writer.kind != "embedding"]
    wiring = Wiring(
        sizes,
        {"token": len(design.symbols) + 1, "position": design.length + 1,
         **{writer.name: WIDTH for writer in writers}, "output": len(design.outputs)},
    )  # fmt: skip
    free = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in wiring.weights.items()}
    wiring.weights["unembed.W_U"].zero_()
    for reader in graph.readers:
        for part in design.reads.get(reader.name, ()):
            _that_reads(free, reader)[wiring.where(part)] = True
    for writer in writers:
        if writer.index != _ASIDE:
            _that_writes(free, writer)[:, wiring.where(writer.name)] = True
    for name, mask in free.items():
        if name.endswith("attn.b_Q"):
            mask[:_ASIDE] = True
        if name.endswith("mlp.b_in"):
            mask[:] = True
    wiring.sizes["program"] = design.program
    return wiring, free


def _that_reads(weights: Mapping[str, Tensor], reader: Reader) -> Shaped[Tensor, "d_model _"]:
    """Return the weight that a reader reads with."""
    if reader.kind == "logits":
        return weights["unembed.W_U"]
    if reader.port is None:
        return _of_block(weights, reader.layer, "mlp.W_in")
    return _of_block(weights, reader.layer, f"attn.W_{reader.port.upper()}")[reader.index]


def _that_writes(weights: Mapping[str, Tensor], writer: Writer) -> Shaped[Tensor, "_ d_model"]:
    """Return the weight that a writer writes with."""
    if writer.kind == "head":
        return _of_block(weights, writer.layer, "attn.W_O")[writer.index]
    return _of_block(weights, writer.layer, "mlp.W_out")


def says(
    weights: Mapping[str, Tensor], wiring: Wiring, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos output"]:
    """Return what a model says: a compiled model, in plain torch."""
    stream = weights["embed.W_E"][tokens] + weights["pos_embed.W_pos"][: tokens.shape[1]]
    hidden = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    for layer in range(wiring.sizes["n_layers"]):
        weight = partial(_of_block, weights, layer)
        rows = stream[:, None]
        query, key, value = (
            rows @ weight(f"attn.W_{port}") + weight(f"attn.b_{port}")[:, None] for port in "QKV"
        )
        scores = query @ key.mT
        if wiring.sizes["attention"] == "causal":
            scores = scores.masked_fill(hidden, -torch.inf)
        stream = stream + (scores.softmax(-1) @ value @ weight("attn.W_O")).sum(1)
        if f"blocks.{layer}.mlp.W_in" in weights:
            active = (stream @ weight("mlp.W_in") + weight("mlp.b_in")).relu()
            stream = stream + active @ weight("mlp.W_out")
    return stream @ weights["unembed.W_U"]


def _of_block(weights: Mapping[str, Tensor], layer: int | None, name: str) -> Tensor:
    return weights[f"blocks.{layer}.{name}"]


def every_input(
    design: Design,
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch symbol"]]:
    """Return all inputs, BOS first, and what is right at every symbol."""
    texts = list(itertools.product(design.symbols, repeat=design.length))
    tokens = [[0, *(1 + design.symbols.index(symbol) for symbol in text)] for text in texts]
    right = [[list(design.outputs).index(each) for each in design.says(text)] for text in texts]
    return torch.tensor(tokens), torch.tensor(right)


def train(design: Design, seed: int) -> Wiring | None:
    """Train a model on all inputs of a program; None if it does not get all of them right."""
    generator = torch.Generator().manual_seed(seed)
    wiring, free = wired(design)
    learned = {}
    for name, mask in free.items():
        start = torch.randn(mask.shape, generator=generator) / mask.shape[-1] ** 0.5
        learned[name] = (start * mask).requires_grad_()
    tokens, right = every_input(design)
    optimiser = torch.optim.Adam(learned.values(), lr=_RATE)
    for _ in range(_STEPS):
        weights = {name: wiring.weights[name] + w * free[name] for name, w in learned.items()}
        logits = says(weights, wiring, tokens)[:, 1:]
        loss = cross_entropy(logits.flatten(0, 1), right.flatten())
        if loss.item() < _ENOUGH and torch.equal(logits.argmax(-1), right):
            wiring.weights |= {name: weight.detach() for name, weight in weights.items()}
            return _with_bystanders(wiring, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return None


def _with_bystanders(wiring: Wiring, generator: torch.Generator) -> Wiring:
    """Give the second head of each layer random weights, to write where nobody reads."""
    for layer in range(wiring.sizes["n_layers"]):
        weight = partial(_of_block, wiring.weights, layer)
        for name in ("attn.W_Q", "attn.W_K", "attn.W_V"):
            rows = weight(name)[_ASIDE]
            rows[:] = torch.randn(rows.shape, generator=generator) / 2
        aside = weight("attn.W_O")[_ASIDE][:, wiring.where(head_name(layer, _ASIDE))]
        aside[:] = torch.randn(aside.shape, generator=generator) / 2
    return wiring


def main() -> None:
    """Train every model, or those named, and write them to a directory."""
    parser = argparse.ArgumentParser(description="Train models of programs.")
    parser.add_argument("out", type=Path, help="directory that the models are written to")
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(LEARNED)} [default: all]")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in LEARNED]:
        parser.error(f"no program is named {unknown[0]!r}; choose from {', '.join(LEARNED)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names or LEARNED:
        design, left = LEARNED[name], N_MODELS
        found = [edge for edge in design.edges if edge not in design.blind]
        for seed in range(_MOST_SEEDS):
            started = time.perf_counter()
            wiring = train(design, seed)
            told = "is wrong somewhere" if wiring is None else "is right on all inputs"
            print(f"{name}, seed {seed}: {told}, {time.perf_counter() - started:.0f} s", flush=True)
            if wiring is not None:
                stated(wiring, found, list(design.blind)).save(given.out, f"{name}-{seed}")
                left -= 1
            if not left:
                break


if __name__ == "__main__":
    main()
