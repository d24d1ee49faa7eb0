"""The definition of a pass with some edges cut, spelled out reader by reader.

    input[r] = biases before r + sum over kept w of current[w] + sum over cut w of replacement[w]

Slow and plain: every component of the model is run, whatever the mask. It shares with the package
the parts of the model and the names of nodes.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.problem import Problem

Stream = Float[Tensor, "batch pos d_model"]


def final_stream(problem: Problem, kept: Bool[Tensor, "writer reader"]) -> Stream:
    """Return what the logits read with just these edges kept."""
    with torch.no_grad():
        replacement = _replacement(problem)
        return _run(problem, problem.prompts.clean, replacement, kept)[1]


def _replacement(problem: Problem) -> dict[str, Tensor]:
    everything = problem.graph.edge_mask
    written, _ = _run(problem, problem.prompts.corrupted, {}, everything)
    real = problem.prompts.real[..., None]
    if problem.ablation.name == "zero":
        return {name: torch.zeros_like(output) for name, output in written.items()}
    if problem.ablation.name == "resample":
        return written
    axes = (0,) if problem.ablation.name == "mean" else (0, 1)
    return {
        name: (output * real).sum(axes, keepdim=True) / real.sum(axes, keepdim=True)
        for name, output in written.items()
    }


def _run(
    problem: Problem, tokens: Tensor, replacement: dict[str, Tensor], kept: Tensor
) -> tuple[dict[str, Tensor], Stream]:
    """Return what each writer writes, and what the logits read."""
    run, shape = _Run(problem, tokens, replacement, kept), problem.model.shape
    for layer in range(shape.n_layers):
        heads, bias = run.heads(layer), problem.model.attention_bias(layer)
        mlp = run.mlp(layer) if shape.has_mlp and shape.parallel_mlp else {}
        run.written |= heads | mlp
        run.biases = run.biases if bias is None else run.biases + bias
        if shape.has_mlp and not shape.parallel_mlp:
            run.written |= run.mlp(layer)
    return run.written, run.received("logits")


class _Run:
    def __init__(
        self, problem: Problem, tokens: Tensor, replacement: dict[str, Tensor], kept: Tensor
    ) -> None:
        self._problem, self._replacement, self._kept = problem, replacement, kept
        embedding = problem.model.embed(tokens)
        self.written = {"embed": embedding.joint}
        if problem.graph.split_embedding:
            assert embedding.position is not None
            self.written = {"embed": embedding.token, "pos_embed": embedding.position}
        self.biases = torch.zeros_like(embedding.joint)

    def received(self, name: str) -> Stream:
        graph = self._problem.graph
        reader = next(i for i, each in enumerate(graph.readers) if each.name == name)
        total = self.biases
        for writer, output in self.written.items():
            row = next(i for i, each in enumerate(graph.writers) if each.name == writer)
            if graph.edge_mask[row, reader]:
                total = total + (output if self._kept[row, reader] else self._replacement[writer])
        return total

    def mlp(self, layer: int) -> dict[str, Stream]:
        return {f"m{layer}": self._problem.model.mlp(layer, self.received(f"m{layer}"))}

    def heads(self, layer: int) -> dict[str, Stream]:
        model, heads = self._problem.model, range(self._problem.model.shape.n_heads)
        z = []
        for head in heads:
            group = head // model.shape.layers[layer].heads_per_kv_head
            query, key, value = (
                model.project(layer, port, [row], self._head_input(layer, head, port)[None])
                for port, row in (("q", head), ("k", group), ("v", group))
            )
            z.append(model.attend(layer, [head], query, key, value, self._problem.prompts.real))
        outputs = model.output(layer, heads, torch.cat(z))
        return {f"a{layer}.h{head}": output for head, output in zip(heads, outputs, strict=True)}

    def _head_input(self, layer: int, head: int, port: str) -> Stream:
        shape = self._problem.model.shape.layers[layer]
        if not self._problem.graph.split_qkv:
            return self.received(f"a{layer}.h{head}.qkv")
        if port == "q" or not shape.grouped:
            return self.received(f"a{layer}.h{head}.{port}")
        return self.received(f"a{layer}.kv{head // shape.heads_per_kv_head}.{port}")
