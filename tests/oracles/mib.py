"""What MIB's own evaluation gives, written from its description over TransformerLens' hooks.

It shares nothing with the package. A model with shared key/value heads is made one without, by
copying the weights of each key/value head for every query head that shares it. Edges are named as
MIB names them (`input->a0.h1<k>`), kept in sets, and pruned by going through them again and again.

A run on corrupted prompts notes what every node writes. In the run on clean prompts each reader is
given what it receives and, for every edge into it that is cut, the difference of what the writer
wrote on the corrupted prompts and what it writes now. Where a norm follows the sum of a layer's
heads, that is the norm of the sum with these differences minus the norm of the sum as it is.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class Official:
    """A hooked model on pairs of prompts of one length, with right and wrong answers."""

    def __init__(
        self, hooked: Any, clean: Tensor, corrupted: Tensor, right: Tensor, wrong: Tensor
    ) -> None:
        self.bridge = hooked
        config = self.bridge.cfg
        self.n_layers, self.n_heads = config.n_layers, config.n_heads
        self.head_norms = None
        if "ln1_post" in self.bridge.blocks[0]._modules:
            self.head_norms = [block.ln1_post.original_component for block in self.bridge.blocks]
        self.clean, self.right, self.wrong = clean, right, wrong
        self.corrupted: dict[str, Tensor] = {}
        with torch.no_grad():
            logits = self.bridge.run_with_hooks(corrupted, fwd_hooks=self._notes(self.corrupted))
            self.empty = self._differences(logits)
            self.full = self._differences(self.bridge(clean))

    def _differences(self, logits: Tensor) -> Tensor:
        rows = torch.arange(len(logits))
        return logits[rows, -1, self.right] - logits[rows, -1, self.wrong]

    @property
    def edges(self) -> list[str]:
        """All edges, by name."""
        found, before = [], ["input"]
        for layer in range(self.n_layers):
            heads = [f"a{layer}.h{head}" for head in range(self.n_heads)]
            found += [f"{w}->{head}<{port}>" for w in before for head in heads for port in "qkv"]
            before += heads
            found += [f"{w}->m{layer}" for w in before]
            before.append(f"m{layer}")
        return found + [f"{w}->logits" for w in before]

    def curve(self, scores: Mapping[str, float], *, signed: bool) -> list[float]:
        """Return f at the ten sizes."""
        return [self.f(edges) for edges in self.circuits(scores, signed=signed)]

    def circuits(self, scores: Mapping[str, float], *, signed: bool) -> list[set[str]]:
        """Return the edges of the circuits of ten sizes, after pruning."""
        keys = {name: scores[name] if signed else abs(scores[name]) for name in self.edges}
        order = sorted(self.edges, key=lambda name: -keys[name])
        return [pruned(order[: int(share * len(order))]) for share in SHARES]

    def node_curve(self, scores: Mapping[str, float], *, signed: bool) -> list[float]:
        """Return f at the ten sizes of circuits of nodes; those without a score always stay."""
        keys = {name: score if signed else abs(score) for name, score in scores.items()}
        order = sorted(keys, key=lambda name: -keys[name])
        nodes = {name.split("->")[0] for name in self.edges}
        curve = []
        for share in SHARES:
            kept = {*order[: int(share * len(order))], *(nodes - set(order))}
            curve.append(self.f(name for name in self.edges if name.split("->")[0] in kept))
        return curve

    def f(self, kept: Iterable[str]) -> float:
        """Return the normalised mean logit difference with these edges, after pruning."""
        full, empty = float(self.full.mean()), float(self.empty.mean())
        return (float(self.values(pruned(kept)).mean()) - empty) / (full - empty)

    def values(self, kept: set[str]) -> Tensor:
        """Return the logit difference of each prompt with just these edges kept."""
        live: dict[str, Tensor] = {}
        hooks = self._notes(live) + self._patches(self._cut(kept), live)
        with torch.no_grad():
            return self._differences(self.bridge.run_with_hooks(self.clean, fwd_hooks=hooks))

    def _cut(self, kept: set[str]) -> dict[str, list[str]]:
        """Return the writers of the cut edges into each reader."""
        found: dict[str, list[str]] = {}
        for name in self.edges:
            if name not in kept:
                writer, reader = name.split("->")
                found.setdefault(reader, []).append(writer)
        return found

    def _patches(
        self, cut: Mapping[str, list[str]], live: Mapping[str, Tensor]
    ) -> list[tuple[str, Any]]:
        """Return hooks that add to what every reader receives what its cut edges change."""

        def added(reader: str) -> Tensor | float:
            changes = self._changes(cut.get(reader, []), live)
            return torch.stack(changes).sum(0) if changes else 0.0

        def at_heads(layer: int, port: str) -> Any:
            def hook(stream: Tensor, hook: Any) -> Tensor:
                stream = stream.clone()
                for head in range(self.n_heads):
                    stream[:, :, head] += added(f"a{layer}.h{head}<{port}>")
                return stream

            return hook

        def at(reader: str) -> Any:
            return lambda stream, hook: stream + added(reader)

        hooks = [(f"blocks.{self.n_layers - 1}.hook_resid_post", at("logits"))]
        for layer in range(self.n_layers):
            # The bridge of TransformerLens 4 has these hooks one level deeper.
            known = f"blocks.{layer}.hook_q_input" in self.bridge.hook_dict
            place = f"blocks.{layer}" if known else f"blocks.{layer}.attn"
            hooks += [(f"{place}.hook_{port}_input", at_heads(layer, port)) for port in "qkv"]
            hooks.append((f"blocks.{layer}.hook_mlp_in", at(f"m{layer}")))
        return hooks

    def _changes(self, writers: list[str], live: Mapping[str, Tensor]) -> list[Tensor]:
        """Return what the cut edges of some writers change, with what these write now."""
        norms = self.head_norms or []
        alone = [w for w in writers if not norms or w[0] != "a"]
        changes = [self.corrupted[w] - live[w] for w in alone]
        for layer, norm in enumerate(norms):
            heads = [f"a{layer}.h{head}" for head in range(self.n_heads)]
            if all(head in live for head in heads):
                now = torch.stack([live[head] for head in heads]).sum(0)
                ours = [w for w in writers if w in heads]
                then = sum((self.corrupted[w] - live[w] for w in ours), now)
                changes.append(norm(then) - norm(now))
        return changes

    def attributions(self) -> dict[str, float]:
        """Return, for each node, the change of its output times the slope of the loss there."""
        outputs: dict[str, Tensor] = {}

        def keep(node: str) -> Any:
            return lambda output, hook: outputs.setdefault(node, output.requires_grad_())

        hooks = [("hook_embed", keep("input"))]
        for layer in range(self.n_layers):
            hooks.append((f"blocks.{layer}.attn.hook_result", keep(f"a{layer}")))
            hooks.append((f"blocks.{layer}.hook_mlp_out", keep(f"m{layer}")))
        loss = -self._differences(self.bridge.run_with_hooks(self.clean, fwd_hooks=hooks)).mean()
        slopes = torch.autograd.grad(loss, list(outputs.values()))
        found = {}
        for (node, output), slope in zip(outputs.items(), slopes, strict=True):
            if node in self.corrupted:
                parts = {node: (output, slope)}
            else:
                each = zip(output.unbind(2), slope.unbind(2), strict=True)
                parts = {f"{node}.h{head}": part for head, part in enumerate(each)}
            for name, (written, at) in parts.items():
                found[name] = float(((self.corrupted[name] - written.detach()) * at).sum())
        return found

    def _notes(self, written: dict[str, Tensor]) -> list[tuple[str, Any]]:
        """Return hooks that note what every node writes; that of the input has no positions."""

        def note(node: str) -> Any:
            return lambda output, hook: written.__setitem__(node, output.detach().clone())

        def note_heads(layer: int) -> Any:
            def hook(output: Tensor, hook: Any) -> None:
                for head in range(self.n_heads):
                    written[f"a{layer}.h{head}"] = output[:, :, head].detach().clone()

            return hook

        hooks = [("hook_embed", note("input"))]
        for layer in range(self.n_layers):
            hooks.append((f"blocks.{layer}.attn.hook_result", note_heads(layer)))
            hooks.append((f"blocks.{layer}.hook_mlp_out", note(f"m{layer}")))
        return hooks


def pruned(kept: Iterable[str]) -> set[str]:
    """Return edges without those whose writer reads nothing, or whose reader writes nothing."""
    edges = {tuple(name.split("->")): name for name in kept}
    while True:
        writing = {writer for writer, _ in edges} | {"logits"}
        reading = {reader.split("<")[0] for _, reader in edges} | {"input"}
        left = {
            (writer, reader): name
            for (writer, reader), name in edges.items()
            if writer in reading and reader.split("<")[0] in writing
        }
        if len(left) == len(edges):
            return set(left.values())
        edges = left


def area_under_roc(edges: list[str], scores: Mapping[str, float], true: set[str]) -> float:
    """Return the area between ten circuits that grow from the logits, against a known circuit."""
    rates = []
    for share in SHARES:
        chosen = pruned(_grown(edges, scores, share * len(edges)))
        hits = len(chosen & true)
        rates.append(((len(chosen) - hits) / (len(edges) - len(true)), hits / len(true)))
    last = rates[-1][0]
    pairs = zip(rates, rates[1:], strict=False)
    return sum((b[0] - a[0]) / last * (a[1] + b[1]) / 2 for a, b in pairs)


def _grown(edges: list[str], scores: Mapping[str, float], n: float) -> set[str]:
    """Take the edge of the largest score into a node that is reached, while less than n are."""
    chosen: set[str] = set()
    reached = {"logits"}
    while n > 0:
        n -= 1
        possible = [
            name
            for name in edges
            if name not in chosen and name.split("->")[1].split("<")[0] in reached
        ]
        best = max(possible, key=lambda name: abs(scores[name]))
        chosen.add(best)
        reached.add(best.split("->")[0])
    return chosen


def hooked(model: Any) -> Any:
    """Return a Hugging Face model with hooks, and without shared key/value heads."""
    model = _without_sharing(model)
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    weight = next(model.parameters())
    bridge = build_bridge_from_module(
        model,
        architecture=type(model).__name__,
        hf_config=model.config,
        tokenizer=None,
        dtype=weight.dtype,
        device="cpu",
    )
    bridge.set_use_split_qkv_input(True)
    bridge.set_use_attn_result(True)
    bridge.set_use_hook_mlp_in(True)
    return bridge.eval()


def _without_sharing(model: Any) -> Any:
    """Return a model in which every query head has a key/value head of its own."""
    config = copy.deepcopy(model.config)
    n_heads, n_kv = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    if n_kv in (None, n_heads):
        return copy.deepcopy(model)
    config.num_key_value_heads = n_heads
    weights = dict(model.state_dict())
    for name, weight in weights.items():
        if ".k_proj." in name or ".v_proj." in name:
            heads = weight.unflatten(0, (n_kv, -1)).repeat_interleave(n_heads // n_kv, 0)
            weights[name] = heads.flatten(0, 1)
    with torch.random.fork_rng(devices=[]):
        found = type(model)._from_config(config, attn_implementation="eager")
    # Buffers stay as they are made: rotary frequencies are float32 in both models.
    for name, weight in found.named_parameters():
        weight.data = weights[name]
    found.config.dtype = next(model.parameters()).dtype
    return found.eval().requires_grad_(requires_grad=False)
