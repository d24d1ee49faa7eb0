"""Wire a transformer by hand: name parts of the residual stream, say what reads and writes them.

A `Wiring` starts with all weights zero. Each call connects one component: a head's query, key and
value are linear functions of named spaces of the stream, and so is what it writes; an MLP's hidden
units read one row each. What is not connected has no weights, so the edges that can matter are
known by construction. The result is a compiled model, without norms: `CompiledModel` runs it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from circuitfind.files import write_whole
from circuitfind.models.compiled_sizes import read_sizes

Map = Float[Tensor, "_ _"]
"""From the dimensions of a space (rows) to those of another, or to a head's own."""

SHARP = 40.0
"""Score of a key that is to be attended: softmax gives all others less than 1e-17 of it."""

STEEP = 1000.0
"""Slope of a step: far more than one over the smallest difference between two counts' shares."""


@dataclass
class Wiring:
    """A transformer under construction.

    Attributes:
        sizes: What a compiled model's JSON holds, without `d_model`.
        spaces: The sizes of the stream's named parts. `token` and `position` are written by the
            embedding, one dimension for each token and position; `output` is read by the logits.
    """

    sizes: dict[str, Any]
    spaces: Mapping[str, int]
    weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sizes["d_model"] = sum(self.spaces.values())
        sizes = read_sizes(self.sizes)
        # Without a bias of the unembedding: the files of these models have none.
        shapes = {**sizes.required(), **sizes.biases()}
        del shapes["unembed.b_U"]
        self.weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
        tokens, positions = self.sizes["d_vocab"], self.sizes["n_ctx"]
        self.weights["embed.W_E"][:, self.where("token")] = torch.eye(tokens)
        self.weights["pos_embed.W_pos"][:, self.where("position")] = torch.eye(positions)
        self.weights["unembed.W_U"][self.where("output")] = torch.eye(self.sizes["d_vocab_out"])

    def where(self, space: str) -> slice:
        """Return where a space lies in the stream."""
        start = 0
        for name, size in self.spaces.items():
            if name == space:
                return slice(start, start + size)
            start += size
        raise KeyError(space)

    def head(
        self,
        layer: int,
        head: int,
        *,
        query: Mapping[str, Map],
        key: Mapping[str, Map],
        value: Mapping[str, Map],
        output: Mapping[str, Map],
        query_bias: Sequence[float] = (),
    ) -> None:
        """Connect a head.

        Args:
            layer: Its layer.
            head: Its number.
            query: For each space read, the map to the head's dimensions.
            key: Likewise.
            value: Likewise.
            output: For each space written, the map from the head's dimensions.
            query_bias: What the query is where nothing is read.
        """
        attention = f"blocks.{layer}.attn"
        for port, maps in (("Q", query), ("K", key), ("V", value)):
            for space, weight in maps.items():
                rows = self.where(space)
                self.weights[f"{attention}.W_{port}"][head, rows, : weight.shape[1]] += weight
        for space, weight in output.items():
            self.weights[f"{attention}.W_O"][head, : weight.shape[0], self.where(space)] += weight
        self.weights[f"{attention}.b_Q"][head, : len(query_bias)] = torch.tensor(list(query_bias))

    def unit(
        self,
        layer: int,
        number: int,
        reads: Mapping[str, Sequence[float]],
        bias: float,
        writes: Mapping[str, Sequence[float]],
    ) -> None:
        """Connect one hidden unit of an MLP: relu(reads + bias), times what it writes."""
        mlp = f"blocks.{layer}.mlp"
        for space, row in reads.items():
            self.weights[f"{mlp}.W_in"][self.where(space), number] = torch.tensor(list(row))
        for space, row in writes.items():
            self.weights[f"{mlp}.W_out"][number, self.where(space)] = torch.tensor(list(row))
        self.weights[f"{mlp}.b_in"][number] = bias

    def save(self, folder: Path, name: str) -> None:
        """Write the model as `NAME.json` and `NAME.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{name}.safetensors", save(self.weights))
        write_whole(folder / f"{name}.json", json.dumps(self.sizes, indent=1) + "\n")


def sizes_of(
    symbols: Sequence[str], outputs: Sequence[str], length: int, **sizes: int | str | list[int]
) -> dict[str, Any]:
    """Return the sizes of a model that reads BOS and `length` symbols.

    Args:
        symbols: What it reads.
        outputs: Labels of what it says.
        length: How many symbols it reads at most.
        sizes: `n_layers`, `n_heads`, `d_head`, `d_mlp` (heads and widths may be lists, one value
            for each layer), and `attention` if it is causal.
    """
    return {
        "n_ctx": length + 1,
        "d_vocab": len(symbols) + 1,
        "d_vocab_out": len(outputs),
        "activation": "relu",
        "normalization": None,
        "attention": "bidirectional",
        "attention_scale": 1.0,
        "tokens": {"BOS": 0, **{symbol: number for number, symbol in enumerate(symbols, 1)}},
        "output_labels": list(outputs),
        **sizes,
    }


def count_step(
    wiring: Wiring,
    number: int,
    count: int,
    writes: dict[str, list[float]],
    *,
    position: int | None = None,
) -> None:
    """Write something iff BOS has at least the share that `count` symbols leave it.

    Two hidden units make a step from 0 to 1; with a position, only there.
    """
    middle = (1 / (count + 1) + 1 / (count + 2)) / 2
    reads, bias = {"share": [STEEP]}, -STEEP * middle
    if position is not None:
        reads["position"] = [STEEP * here for here in one(wiring.sizes["n_ctx"], position)]
        bias -= STEEP
    step(wiring, 0, number, reads, writes, bias)


def step(
    wiring: Wiring,
    layer: int,
    number: int,
    reads: dict[str, list[float]],
    writes: dict[str, list[float]],
    bias: float = 0.0,
) -> None:
    """Write something where what is read is above minus the bias: two units step from 0 to 1."""
    wiring.unit(layer, number, reads, bias, writes)
    negative = {space: [-value for value in row] for space, row in writes.items()}
    wiring.unit(layer, number + 1, reads, bias - 1, negative)


def one(size: int, *places: int) -> list[float]:
    """Return a row that is 1 at some places and otherwise 0."""
    return [float(index in places) for index in range(size)]


def column(row: Sequence[float]) -> Map:
    """Return the map of a space to a single dimension."""
    return torch.tensor(list(row))[:, None]


def symbols_of(wiring: Wiring) -> Map:
    """Return the map from tokens to symbols: BOS to none."""
    return torch.eye(wiring.sizes["d_vocab"])[:, 1:].clone()


def stated(wiring: Wiring, found: list[str], blind: list[str], **more: str) -> Wiring:
    """State the true circuit.

    Args:
        wiring: The model.
        found: Its edges.
        blind: More edges, which count where what all inputs share is cut too.
        more: More to say.
    """
    every = [*found, *blind]
    truth = {"resample": found, "mean": found, "zero": every, "mean-over-positions": every}
    wiring.sizes |= {"thresholds": [1e-6, 0.001], "truth": truth, **more}
    return wiring
