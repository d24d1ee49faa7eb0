"""What a compiled program says if only some edges carry the clean signal, from its raw weights.

As `brute_force` is for transformers with modules, this is for weights in TransformerLens' names
(`circuitfind.models.compiled` says which): every reader's stream is added up from its definition,
and every head and MLP is computed for itself, in stage order, in float64. Nothing of the package is
used but the names of writers and readers and their order.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from circuitfind.graph import Graph


class CompiledOracle:
    """A program on fixed inputs, ready to be run for one set of edges after another.

    Args:
        file: The program's JSON, with its weights beside it.
        graph: Names writers and readers, in the order of execution.
        clean: The inputs [batch pos].
        corrupted: The corrupted inputs, as long as the clean ones [batch pos].
        ablation: A name of `circuitfind.ablations.ABLATIONS`.
    """

    def __init__(
        self, file: Path, graph: Graph, clean: Tensor, corrupted: Tensor, ablation: str
    ) -> None:
        self._sizes = json.loads(file.read_text())
        weights = load_file(file.with_suffix(".safetensors"))
        self._weights = {name: weight.double() for name, weight in weights.items()}
        self._graph, self._clean = graph, clean
        everything = {edge.name for edge in graph.edges()}
        nothing: dict[str, Tensor] = {}
        written, _ = self._run(corrupted, everything, nothing)
        replaced = {
            "resample": lambda output: output,
            "zero": torch.zeros_like,
            "mean": lambda output: output.mean(0).expand_as(output),
            "mean-over-positions": lambda output: output.mean((0, 1)).expand_as(output),
        }[ablation]
        self._replacement = {name: replaced(output) for name, output in written.items()}

    def outputs(self, kept: Iterable[str]) -> Tensor:
        """Return what is said at every position [batch pos output] if only `kept` are intact."""
        return self._run(self._clean, set(kept), self._replacement)[1]

    def needed(self, candidates: Iterable[str], change: float = 1e-6) -> set[str]:
        """Return which edges change what `candidates` say together if they are cut alone.

        Changes are squared and summed over outputs, and averaged over inputs.
        """
        together = set(candidates)
        said = self.outputs(together)
        return {
            edge
            for edge in together
            if float((self.outputs(together - {edge}) - said)[:, 1:].square().mean()) > change
        }

    def without_spare(self, candidates: Iterable[str]) -> set[str]:
        """Return the needed edges, then those that are needed among them, until all are."""
        edges = set(candidates)
        while (fewer := self.needed(edges)) != edges:
            edges = fewer
        return edges

    def _run(
        self, tokens: Tensor, kept: set[str], replacement: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        w, n_positions = self._weights, tokens.shape[1]
        written = {"embed": w["embed.W_E"][tokens] + w["pos_embed.W_pos"][:n_positions]}
        biases: list[tuple[int, Tensor]] = []

        def stream(name: str) -> Tensor:
            reader = self._graph.readers[self._graph.reader_index[name]]
            earlier = [one for one in self._graph.writers if one.stage < reader.stage]
            parts = [
                (written if f"{one.name}->{name}" in kept else replacement)[one.name]
                for one in earlier
            ]
            return sum(parts) + sum(bias for stage, bias in biases if stage < reader.stage)

        for layer in range(self._sizes["n_layers"]):
            block = f"blocks.{layer}."
            for head in range(self._of(layer, "n_heads")):
                q, k, v = (
                    self._normed(f"{block}ln1", stream(f"a{layer}.h{head}.{port.lower()}"))
                    @ w[f"{block}attn.W_{port}"][head]
                    + self._bias(f"{block}attn.b_{port}", head)
                    for port in "QKV"
                )
                scores = q @ k.transpose(1, 2) / self._sizes["attention_scale"]
                if self._sizes["attention"] == "causal":
                    later = torch.ones(n_positions, n_positions).triu(1).bool()
                    scores = scores.masked_fill(later, -math.inf)
                mixed = scores.softmax(-1) @ v
                written[f"a{layer}.h{head}"] = mixed @ w[f"{block}attn.W_O"][head]
            biases.append((2 * layer + 1, self._bias(f"{block}attn.b_O")))
            if self._of(layer, "d_mlp"):
                normed = self._normed(f"{block}ln2", stream(f"m{layer}"))
                written[f"m{layer}"] = self._mlp(f"{block}mlp.", normed)
        final = self._normed("ln_final", stream("logits"))
        return written, final @ w["unembed.W_U"] + self._bias("unembed.b_U")

    def _of(self, layer: int, name: str) -> int:
        value = self._sizes[name]
        return value[layer] if isinstance(value, list) else value

    def _bias(self, name: str, *index: int) -> Tensor | float:
        return self._weights[name][index] if name in self._weights else 0.0

    def _mlp(self, name: str, normed: Tensor) -> Tensor:
        w, act = self._weights, ACTIVATIONS[self._sizes["activation"]]
        if self._sizes.get("gated_mlp"):
            inner = act(normed @ w[f"{name}W_gate"]) * (normed @ w[f"{name}W_in"])
        else:
            inner = act(normed @ w[f"{name}W_in"] + self._bias(f"{name}b_in"))
        return inner @ w[f"{name}W_out"] + self._bias(f"{name}b_out")

    def _normed(self, name: str, stream: Tensor) -> Tensor:
        """Layer norm or RMS norm, written out."""
        kind = self._sizes.get("normalization")
        if kind is None:
            return stream
        if kind.startswith("LN"):
            stream = stream - stream.mean(-1, keepdim=True)
        square = (stream * stream).mean(-1, keepdim=True)
        normed = stream / (square + self._sizes.get("eps", 1e-5)).sqrt()
        gain = self._weights[f"{name}.w"] if kind in ("LN", "RMS") else 1.0
        return normed * gain + self._bias(f"{name}.b")


ACTIVATIONS = {
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "gelu_new": lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "solu": lambda x: x * torch.exp(x) / torch.exp(x).sum(-1, keepdim=True),
}
"""The activations from their definitions."""
