"""The definition of a pass with some edges cut, spelled out reader by reader.

    input[r] = biases before r + sum over kept w of current[w] + sum over cut w of replacement[w]

Slow and plain: every component of the model is run, whatever the mask. It shares with the package
the parts of the model and the names of nodes. How an MLP is taken apart is in `units.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuitfind.models.activations import read_by_mlp
from circuitfind.models.base import ResidualModel
from circuitfind.problem import Problem
from tests.oracles.units import Parts, attention_parts, parts_of

Stream = Float[Tensor, "batch pos d_model"]
NOTHING: Mapping[int, Stream] = MappingProxyType({})


def final_stream(problem: Problem, kept: Bool[Tensor, "writer reader"]) -> Stream:
    """Return what the logits read with just these edges kept."""
    with torch.no_grad():
        replacement = _replacement(problem)
        tokens = problem.prompts.clean
        unpatched = _run(problem, tokens, {}, problem.graph.edge_mask)
        run = _run(problem, tokens, replacement, kept, unpatched.read_by_mlps)
        return run.received("logits")


def _replacement(problem: Problem) -> dict[str, Tensor]:
    everything = problem.graph.edge_mask
    written = _run(problem, problem.prompts.corrupted, {}, everything).written
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
    problem: Problem,
    tokens: Tensor,
    replacement: dict[str, Tensor],
    kept: Tensor,
    unpatched: Mapping[int, Stream] = NOTHING,
) -> "_Run":
    """Run everything; `unpatched` is what MLPs receive without a cut, if something is cut."""
    run, shape = _Run(problem, tokens, replacement, kept, unpatched), problem.model.shape
    for layer in range(shape.n_layers):
        run.take_apart(f"pre{layer}")
        heads, bias = run.heads(layer), problem.model.attention_bias(layer)
        bias = None if f"a{layer}.rest" in heads else bias
        mlp = run.mlp(layer) if shape.has_mlp and shape.parallel_mlp else {}
        run.written |= heads | mlp
        run.biases = run.biases if bias is None else run.biases + bias
        run.take_apart(f"mid{layer}")
        if shape.has_mlp and not shape.parallel_mlp:
            run.written |= run.mlp(layer)
        run.take_apart(f"post{layer}")
    return run


class _Run:
    def __init__(
        self,
        problem: Problem,
        tokens: Tensor,
        replacement: dict[str, Tensor],
        kept: Tensor,
        unpatched: Mapping[int, Stream],
    ) -> None:
        self._problem, self._replacement, self._kept = problem, replacement, kept
        self._unpatched = unpatched
        self.read_by_mlps: dict[int, Stream] = {}
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

    def take_apart(self, name: str) -> None:
        """Let latents write for all that was written before, biases included."""
        if parts := parts_of(self._problem.graph, name):
            stream = self.received(name)
            dictionary = self._problem.model.dictionaries[name]
            found = attention_parts(parts, dictionary, stream, stream, lambda x: x)
            self.written |= {f"{name}.{part}": output for part, output in found.items()}
            self.biases = torch.zeros_like(stream)

    def mlp(self, layer: int) -> dict[str, Stream]:
        name, model, graph = f"m{layer}", self._problem.model, self._problem.graph
        if not (parts := parts_of(graph, name)):
            return {name: model.mlp(layer, self.received(name))}
        readers = [r.name for r in graph.readers if r.name.split(".")[0] == name]
        # The same for all of them where nothing is cut, and used only there.
        self.read_by_mlps[layer] = self.received(readers[0])
        return Parts(
            _ModelMlp(model, layer),
            name,
            parts,
            self.received,
            has_one_reader=readers == [name],
            unpatched=self._unpatched.get(layer, self.read_by_mlps[layer]),
            dictionary=model.dictionaries.get(name),
        ).written()

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
        name = f"a{layer}"
        if parts := parts_of(self._problem.graph, name):
            return self._latents(name, layer, parts, torch.cat(z))
        outputs = model.output(layer, heads, torch.cat(z))
        return {f"a{layer}.h{head}": output for head, output in zip(heads, outputs, strict=True)}

    def _latents(self, name: str, layer: int, parts: list[str], z: Tensor) -> dict[str, Stream]:
        """Return what each part of the output of attention adds."""
        model = self._problem.model
        dictionary, joined = model.dictionaries[name], z.permute(1, 2, 0, 3).flatten(2)
        read = joined if dictionary.reads == "attn.hook_z" else None
        added = model.attention_output(layer, z)
        found = attention_parts(parts, dictionary, added, joined, lambda x: x, read=read)
        return {f"{name}.{part}": output for part, output in found.items()}

    def _head_input(self, layer: int, head: int, port: str) -> Stream:
        shape = self._problem.model.shape.layers[layer]
        if not self._problem.graph.split_qkv:
            return self.received(f"a{layer}.h{head}.qkv")
        if port == "q" or not shape.grouped:
            return self.received(f"a{layer}.h{head}.{port}")
        return self.received(f"a{layer}.kv{head // shape.heads_per_kv_head}.{port}")


@dataclass(frozen=True)
class _ModelMlp:
    """The MLP of a layer by the parts of the model."""

    model: ResidualModel
    layer: int

    def normed(self, stream: Tensor) -> Tensor:
        return self.model.mlp_normed(self.layer, stream)

    def normalized(self, stream: Tensor) -> Tensor:
        return read_by_mlp(self.model, self.layer, "ln2.hook_normalized", stream)

    def whole(self, stream: Tensor) -> Tensor:
        return self.model.mlp(self.layer, stream)

    def active(self, stream: Tensor) -> Tensor:
        return self.model.mlp_post(self.layer, self.model.mlp_pre(self.layer, stream))

    def down(self, active: Tensor) -> Tensor:
        neurons = self.model.neurons(self.layer)
        assert neurons is not None
        return neurons.out(active)

    def added(self, parts: list[Tensor]) -> list[Tensor]:
        neurons = self.model.neurons(self.layer)
        assert neurons is not None
        if (norm := neurons.norm) is None:
            return parts
        factor = norm.apart(torch.stack(parts).sum(0)).factor
        return [norm.centre(part) * factor * norm.gain for part in parts]
