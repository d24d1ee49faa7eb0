"""What a model's logits are if only some edges carry the clean signal, computed from scratch.

The oracle that the engine is held to. It shares nothing with `circuitfind.models` or
`circuitfind.engine` except the names of writers and readers, and prefers the obvious to the fast:

1. Run the model once, ordinarily, and note what enters its first block and how each attention
   module is called (masks, rotary angles).
2. Layer by layer, add up each reader's stream from its definition: the constant attention biases
   of earlier layers, what every kept writer wrote in this run, and every cut one's replacement.
3. For each q, k and v reader apply the model's norm and projection to its own stream, and keep that
   head's columns alone. Call the model's attention module with these as its projections' outputs,
   read what reaches its output projection, and send each head through that projection by itself.
4. Apply the model's norm and MLP to the MLP's stream; after the last layer its norm and unembedding
   to the logits' stream.

What the families call their modules, and how they lay out fused projections, is in `layouts.py`;
how an MLP is taken apart whose neurons or latents are writers, in `units.py`.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from circuitfind.graph import Graph
from tests.oracles import moves as moves_oracle
from tests.oracles.checkpoints import FAMILIES
from tests.oracles.layouts import LAYOUTS, blocks_of, submodule
from tests.oracles.units import (
    Dictionaries,
    ModuleMlp,
    Parts,
    attention_parts,
    parts_of,
    shares_of_norm,
)

Ablation = Literal["resample", "zero", "mean", "mean-over-positions"]
Written = dict[str, Tensor]
"""What each writer, by name, adds to the stream: [batch pos d_model]."""

NO_DICTIONARIES: Dictionaries = MappingProxyType({})


def logits_of(
    model: Any,
    family: str,
    clean: Tensor,
    corrupted: Tensor,
    graph: Graph,
    kept: Tensor,
    ablation: Ablation = "resample",
) -> Tensor:
    """Return the logits [batch pos vocab] on the clean prompts if only `kept` edges are intact."""
    return BruteForce(model, family, clean, corrupted, graph, ablation).logits(kept)


def writer_outputs(
    model: Any,
    family: str,
    tokens: Tensor,
    graph: Graph,
    real: Tensor | None = None,
    dictionaries: Dictionaries = NO_DICTIONARIES,
) -> Written:
    """Return what every writer adds to the stream, [batch pos d_model], in an ordinary run."""
    with torch.no_grad():
        ordinary = OrdinaryRun.of(model, family, tokens, real)
        run = _Run(model, family, ordinary, graph, graph.edge_mask, None, None, dictionaries)
        run.logits()
    return run.written


class BruteForce:
    """The model on fixed prompts, ready to be run for one mask after another, always in full.

    Args:
        model: A Hugging Face model, or a bridge around one of TransformerLens' native models.
        family: A name of `checkpoints.FAMILIES`.
        clean: Tokens of the clean prompts [batch pos].
        corrupted: Tokens of the corrupted prompts [batch pos].
        graph: Names the rows (writers) and columns (readers) of the masks.
        ablation: What a cut edge carries.
        real: True at tokens and False at padding [batch pos]; all are real if not given.
        place_of: Number of the place of each position [batch pos], where the graph has places.
        dictionaries: By block, those whose latents are writers of the graph.
    """

    def __init__(
        self,
        model: Any,
        family: str,
        clean: Tensor,
        corrupted: Tensor,
        graph: Graph,
        ablation: Ablation = "resample",
        real: Tensor | None = None,
        place_of: Tensor | None = None,
        dictionaries: Dictionaries = NO_DICTIONARIES,
    ) -> None:
        self.model, self.family, self.graph = model, family, graph
        self.dictionaries = dictionaries
        self.place_of = torch.zeros_like(clean) if place_of is None else place_of
        self.ordinary = OrdinaryRun.of(model, family, clean, real)
        weight = torch.ones_like(clean) if real is None else real
        merged = graph.merged
        outputs = writer_outputs(model, family, corrupted, merged, real, dictionaries)
        self.replacement = {
            name: _replacement(output, ablation, weight.to(output.dtype)[..., None])
            for name, output in outputs.items()
        }
        self.runs = 0

    def logits(self, kept: Tensor) -> Tensor:
        """Return the logits [batch pos vocab] if only the edges of `kept` are intact."""
        self.runs += 1
        with torch.no_grad():
            return self._run(kept).logits()

    def outputs(self, kept: Tensor) -> Written:
        """Return what every writer adds to the stream, [batch pos d_model], in that run."""
        with torch.no_grad():
            run = self._run(kept)
            run.logits()
        return run.written

    def _run(self, kept: Tensor) -> "_Run":
        return _Run(
            self.model,
            self.family,
            self.ordinary,
            self.graph,
            kept,
            self.replacement,
            self.place_of,
            self.dictionaries,
        )


def _replacement(corrupted: Tensor, ablation: Ablation, weight: Tensor) -> Tensor:
    """Return what a cut edge carries, given its writer's output on the corrupted prompts."""
    if ablation == "resample":
        return corrupted
    if ablation == "zero":
        return torch.zeros_like(corrupted)
    axes = {"mean": (0,), "mean-over-positions": (0, 1)}[ablation]
    mean = (corrupted * weight).sum(axes, keepdim=True) / weight.sum(axes, keepdim=True)
    return mean.expand_as(corrupted)


@dataclass
class OrdinaryRun:
    """What one plain forward pass of the model shows from outside.

    Attributes:
        stream: What enters the first block: token and position embedding, scaled or normed.
        positions: The part of it that is a learned position embedding, if there is one.
        attention_calls: The positional and keyword arguments of each layer's attention module.
        mlp_streams: What the MLP of each layer that has one receives, before its norm.
        logits: The model's own logits.
    """

    stream: Tensor
    positions: Tensor | None
    attention_calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    mlp_streams: list[Tensor]
    logits: Tensor

    @classmethod
    def of(cls, model: Any, family: str, tokens: Tensor, real: Tensor | None) -> "OrdinaryRun":
        """Run the model and note what passes by."""
        layout, blocks = LAYOUTS[family], blocks_of(model, family)
        streams: list[Tensor] = []
        positions: list[Tensor] = []
        mlp_streams: list[Tensor] = []
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def note_stream(module: nn.Module, args: Any, kwargs: Any) -> None:
            streams.append(args[0] if args else kwargs["hidden_states"])

        def note_call(module: nn.Module, args: Any, kwargs: Any) -> None:
            calls.append((args, kwargs))

        def note_mlp_stream(module: nn.Module, args: Any) -> None:
            mlp_streams.append(args[0].reshape(streams[0].shape))

        def note_positions(module: nn.Module, args: Any, output: Tensor) -> None:
            positions.append(output)

        with ExitStack() as hooks, torch.no_grad():
            hooks.enter_context(blocks[0].register_forward_pre_hook(note_stream, with_kwargs=True))
            for block in blocks:
                module = getattr(block, layout.attention)
                hooks.enter_context(module.register_forward_pre_hook(note_call, with_kwargs=True))
                if FAMILIES[family].has_mlp:
                    norm = getattr(block, layout.mlp_norm)
                    hooks.enter_context(norm.register_forward_pre_hook(note_mlp_stream))
            if layout.positions is not None:
                module = submodule(model, family, layout.positions)
                hooks.enter_context(module.register_forward_hook(note_positions))
            mask = {} if real is None else {"attention_mask": real.long()}
            output = model(tokens, **mask)
        stream = streams[0].clone()
        position = positions[0].expand_as(stream).clone() if positions else None
        return cls(stream, position, calls, mlp_streams, getattr(output, "logits", output))


class _Run:
    """One run of the whole model for one mask."""

    def __init__(
        self,
        model: Any,
        family: str,
        ordinary: OrdinaryRun,
        graph: Graph,
        kept: Tensor,
        replacement: Written | None,
        place_of: Tensor | None = None,
        dictionaries: Dictionaries = NO_DICTIONARIES,
    ) -> None:
        self.model, self.family, self.layout = model, family, LAYOUTS[family]
        self.dictionaries = dictionaries
        self.ordinary, self.graph, self.shape = ordinary, graph, graph.shape
        self.written: Written = {}
        self.hidden: set[str] = set()
        self.kept, self.place_of = kept, place_of
        # Without replacements nothing may be cut: 0 times anything is then 0.
        self.replacement = self.written if replacement is None else replacement
        self.constants: list[tuple[int, Tensor]] = []  # (stage, attention output bias)

    def logits(self) -> Tensor:
        """Run every component in turn and return the logits."""
        self._write_embedding()
        for layer, block in enumerate(blocks_of(self.model, self.family)):
            self._run_stream(f"pre{layer}")
            self._run_attention(layer, block)
            self._run_stream(f"mid{layer}")
            if self.shape.has_mlp:
                self._run_mlp(layer, block)
            self._run_stream(f"post{layer}")
        norm = submodule(self.model, self.family, self.layout.final_norm)
        unembed = submodule(self.model, self.family, self.layout.unembed)
        return _soft_capped(self.model, unembed(norm(self._streams(["logits"]))))

    def _streams(self, reader_names: list[str]) -> Tensor:
        """Return what readers of one stage receive, [reader * batch, pos, d_model].

        That is: constants, what every earlier writer wrote where its edge is kept, and the
        replacement of every earlier writer whose edge is cut. With places, each position is that of
        the stream of its own place.
        """
        if not self.graph.places or self.place_of is None:
            return self._summed(reader_names).flatten(0, 1)
        received = torch.zeros(())
        for number, place in enumerate(self.graph.places):
            streams = self._summed([f"{name}@{place}" for name in reader_names])
            received = received + streams * (self.place_of == number)[None, :, :, None]
        return received.flatten(0, 1)

    def _summed(self, reader_names: list[str]) -> Tensor:
        columns = [self.graph.reader_index[name] for name in reader_names]
        stage = self.graph.readers[columns[0]].stage
        earlier = [
            row
            for row, writer in enumerate(self.graph.writers)
            if writer.stage < stage and writer.port is None and writer.name not in self.hidden
        ]
        names = [self.graph.writers[row].name for row in earlier]
        written = torch.stack([self.written[name] for name in names])
        replacement = torch.stack([self.replacement[name] for name in names])
        kept = self.kept[earlier][:, columns].to(written.dtype)
        total = torch.einsum("wr,wbpd->rbpd", kept, written)
        total = total + torch.einsum("wr,wbpd->rbpd", 1 - kept, replacement)
        for constant_stage, constant in self.constants:
            if constant_stage < stage:
                total = total + constant
        return total

    def _write_embedding(self) -> None:
        ordinary = self.ordinary
        if self.graph.split_embedding:
            assert ordinary.positions is not None
            self.written["embed"] = ordinary.stream - ordinary.positions
            self.written["pos_embed"] = ordinary.positions
        else:
            self.written["embed"] = ordinary.stream

    def _run_stream(self, name: str) -> None:
        """Take the stream apart: what follows reads these parts and nothing from before."""
        if not (parts := parts_of(self.graph, name)):
            return
        stream = self._streams([name])
        outputs = attention_parts(parts, self.dictionaries[name], stream, stream, lambda x: x)
        self.hidden |= set(self.written)
        self.constants.clear()
        for part, output in outputs.items():
            self.written[f"{name}.{part}"] = output

    def _run_mlp(self, layer: int, block: Any) -> None:
        name, mlp = f"m{layer}", ModuleMlp(self.layout, block)
        if not (parts := parts_of(self.graph, name)):
            self.written[name] = mlp.whole(self._streams([name]))
            return
        outputs = Parts(
            mlp,
            name,
            parts,
            streams=lambda reader: self._streams([reader]),
            has_one_reader=any(reader.component == name for reader in self.graph.readers),
            unpatched=self.ordinary.mlp_streams[layer],
            dictionary=self.dictionaries.get(name),
        ).written()
        for writer, output in outputs.items():
            self.written[writer] = output

    def _run_attention(self, layer: int, block: Any) -> None:
        mixed, heads, bias = self._raw_heads(layer, block)
        norm = self.layout.post_attention_norm
        if parts := parts_of(self.graph, f"a{layer}"):
            output = getattr(getattr(block, self.layout.attention), self.layout.output)
            added = output(mixed)
            added = added if norm is None else getattr(block, norm)(added)
            dictionary = self.dictionaries[f"a{layer}"]
            for part, own in attention_parts(parts, dictionary, added, mixed, output).items():
                self.written[f"a{layer}.{part}"] = own
            return
        if norm is not None:
            assert not bias.any(), "a bias inside a post-norm would belong to no head"
            heads = shares_of_norm(getattr(block, norm), heads)
        stage = next(w.stage for w in self.graph.writers if w.name == f"a{layer}.h0")
        self.constants.append((stage, bias))
        for head, output in enumerate(heads):
            self.written[f"a{layer}.h{head}"] = output

    def _raw_heads(self, layer: int, block: Any) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the z, each head's output before any post-norm, and the projection's bias."""
        project_out = getattr(getattr(block, self.layout.attention), self.layout.output)
        if self.graph.moves:
            mixed = self._mixed(layer, block)
        else:
            mixed = self._attend(layer, block, self._projections(layer, block))
        bias = project_out(torch.zeros_like(mixed))
        alone = mixed.new_zeros(self.shape.n_heads, *mixed.shape)
        for head in range(self.shape.n_heads):
            columns = slice(head * self.shape.d_head, (head + 1) * self.shape.d_head)
            alone[head, ..., columns] = mixed[..., columns]
        outputs = project_out(alone.flatten(0, 1)).unflatten(0, (self.shape.n_heads, -1))
        return mixed, list(outputs - bias), bias

    def _mixed(self, layer: int, block: Any) -> Tensor:
        """Return what the heads mix where some moves from place to place are cut."""
        kept = self.kept
        live = self._projections(layer, block)
        self.kept = torch.zeros_like(kept)
        read = {"live": live, "cut": self._projections(layer, block)}
        self.kept = kept
        attention = getattr(block, self.layout.attention)

        def run(*choices: str) -> Tensor:
            outputs = {module: output.clone() for module, output in live.items()}
            for port, choice in zip(("q", "k", "v"), choices, strict=True):
                module = getattr(attention, self.layout.projection(port))
                for head in range(self.shape.n_heads if port == "q" else self.shape.n_kv_heads):
                    columns = self.layout.columns(port, head, self.shape)
                    outputs[module][..., columns] = read[choice][module][..., columns]
            return self._attend(layer, block, outputs)

        assert self.place_of is not None
        moves = torch.ones(self.shape.n_heads, 3, self.graph.n_places, self.graph.n_places).bool()
        for head, port, a, b in moves.nonzero().tolist():
            name, places = f"a{layer}.h{head}", self.graph.places
            if (a, b) in self.graph.moves:
                pair = (
                    self.graph.writer_index[f"{name}.{'qkv'[port]}@{places[a]}"],
                    self.graph.reader_index[f"{name}@{places[b]}"],
                )
                moves[head, port, a, b] = bool(kept[pair])
        return moves_oracle.mixed(run, moves, self.place_of)

    def _attend(self, layer: int, block: Any, projections: dict[nn.Module, Tensor]) -> Tensor:
        """Return what the output projection receives, given what the others return."""
        attention = getattr(block, self.layout.attention)
        project_out = getattr(attention, self.layout.output)
        seen: list[Tensor] = []
        with ExitStack() as hooks:
            for module, output in projections.items():
                # What the module itself is given no longer matters: all its output is overwritten.
                hooks.enter_context(
                    module.register_forward_hook(lambda m, args, out, output=output: output)
                )
            hooks.enter_context(
                project_out.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
            )
            args, kwargs = self.ordinary.attention_calls[layer]
            attention(*args, **kwargs)
        (mixed,) = seen
        return mixed

    def _projections(self, layer: int, block: Any) -> dict[nn.Module, Tensor]:
        """Return each projection's output, every head's columns made from that head's stream."""
        norm = getattr(block, self.layout.attention_norm)
        attention = getattr(block, self.layout.attention)
        readers = [
            (port, head)
            for port in ("q", "k", "v")
            for head in range(self.shape.n_heads if port == "q" else self.shape.n_kv_heads)
        ]
        streams = self._streams([self._reader_name(layer, *reader) for reader in readers])
        normed = norm(streams).unflatten(0, (len(readers), -1))
        outputs: dict[nn.Module, Tensor] = {}
        for (port, head), stream in zip(readers, normed, strict=True):
            module = getattr(attention, self.layout.projection(port))
            whole = module(stream)
            output = outputs.setdefault(module, torch.full_like(whole, torch.nan))
            columns = self.layout.columns(port, head, self.shape)
            output[..., columns] = whole[..., columns]
        return outputs

    def _reader_name(self, layer: int, port: str, head: int) -> str:
        if not self.graph.split_qkv:
            return f"a{layer}.h{head}.qkv"
        grouped = self.shape.n_kv_heads < self.shape.n_heads and port != "q"
        return f"a{layer}.{'kv' if grouped else 'h'}{head}.{port}"


def _soft_capped(model: Any, logits: Tensor) -> Tensor:
    cap = getattr(getattr(model, "config", None), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
