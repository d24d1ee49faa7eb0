"""What the parts of a block write, each from a stream of its own or all from one, part by part.

An MLP is taken apart in one of two ways, which the names of its writers tell. Neurons (`m1.n17`):
neuron i writes what the down projection makes of its activation alone, and `m1.rest` all that the
others write, and the bias. Latents of a dictionary (`m1.f17`): latent i writes its activation times
its row of the decoder, `m1.rest` what the others write and the decoder's bias, `m1.skip` what the
skip connection makes of what is read, and `m1.error` what the dictionary does not reconstruct.

A part is computed from the stream of the reader of its name, or of `m1` where there is only that.
The error of a dictionary that reads and writes the MLP's output comes from that stream too; that of
a transcoder comes from the unpatched run, and nothing acts through it.

The output of attention is taken apart in the same way (`a1.f17`, `a1.rest`, `a1.error`), by a
dictionary of what it adds to the stream or of the z of all heads, from what it adds for the streams
that all readers of all heads receive.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.graph import Graph
from tests.oracles.layouts import Layout

Dictionaries = Mapping[str, Dictionary]
"""The dictionary of each block that has one, by its name: `m1`, `a0`."""


def by_block(dictionaries: Iterable[Dictionary]) -> dict[str, Dictionary]:
    """Return dictionaries by the name of the block that they take apart."""
    letters = {"mlp": "m", "attn": "a", "_pre": "pre", "_mid": "mid", "_post": "post"}
    found = {}
    for each in dictionaries:
        (part,) = [part for part in letters if part in each.site.writes]
        found[f"{letters[part]}{each.site.layer}"] = each
    return found


def parts_of(graph: Graph, name: str) -> list[str]:
    """Return the parts of a block that write, as named after its dot; none if it is whole."""
    before = f"{name}."
    found = [w.name.removeprefix(before) for w in graph.writers if w.name.startswith(before)]
    return [] if any(part.startswith("h") for part in found) else found


def attention_parts(
    parts: list[str],
    dictionary: Dictionary,
    added: Tensor,
    z: Tensor,
    output: Callable[[Tensor], Tensor],
    read: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return what each part of the output of attention adds to the stream [batch pos d_model].

    Args:
        parts: The names of the parts: `f17`, `rest`, `error`.
        dictionary: The dictionary.
        added: What attention adds to the stream, its bias and a norm behind it included.
        z: The z of all heads side by side [batch pos width].
        output: The output projection, bias included.
        read: What the dictionary reads, if it is neither of these as it is reconstructed.
    """
    is_of_z = dictionary.site.writes == "attn.hook_z"
    read = (z if is_of_z else added) if read is None else read
    active = latents_of(dictionary, read)
    listed = [int(part[1:]) for part in parts if part[1:].isdigit()]
    others = [i for i in range(active.shape[-1]) if i not in listed]
    rest = active[..., others] @ dictionary.decoder[others] + dictionary.decoder_bias
    each = [active[..., number, None] * dictionary.decoder[number] for number in listed]
    if is_of_z:
        rest, each = output(rest), [output(own) - output(torch.zeros_like(own)) for own in each]
    found = {f"f{number}": own for number, own in zip(listed, each, strict=True)}
    return {**found, "rest": rest, "error": added - rest - sum(each)}


class Mlp(Protocol):
    """The MLP of a layer, in as many steps as its parts need."""

    def normed(self, stream: Tensor) -> Tensor:
        """Return what the norm before the MLP makes of a stream."""
        ...

    def normalized(self, stream: Tensor) -> Tensor:
        """Return the same; of an RMS norm without its gain."""
        ...

    def whole(self, stream: Tensor) -> Tensor:
        """Return what the MLP as a whole adds to the stream."""
        ...

    def active(self, stream: Tensor) -> Tensor:
        """Return the activations of the neurons [batch pos d_mlp]."""
        ...

    def down(self, active: Tensor) -> Tensor:
        """Return what the down projection makes of activations."""
        ...

    def added(self, parts: list[Tensor]) -> list[Tensor]:
        """Return what is added to the stream of each of the parts that add up to the output."""
        ...


@dataclass(frozen=True)
class Parts:
    """The parts of the MLP of one layer.

    Attributes:
        mlp: The MLP.
        name: Its name: `m1`.
        parts: The names of the parts: `n17` or `f17`, `rest`, `skip`, `error`.
        streams: From the name of a reader to the stream that it receives.
        has_one_reader: Whether `m1` feeds all parts.
        unpatched: What the MLP receives in the unpatched run; only a fixed error needs it.
        dictionary: The dictionary whose latents are parts; None where neurons are.
    """

    mlp: Mlp
    name: str
    parts: list[str]
    streams: Callable[[str], Tensor]
    has_one_reader: bool
    unpatched: Tensor | None
    dictionary: Dictionary | None

    def written(self) -> dict[str, Tensor]:
        """Return what each part adds to the stream [batch pos d_model], by the writer's name."""
        if self.dictionary is None:
            raw = [self._of_neurons(part, self._stream(part)) for part in self.parts]
            outputs = self.mlp.added(raw)
        else:
            outputs = [self._of_dictionary(part, self.dictionary) for part in self.parts]
        names = [f"{self.name}.{part}" for part in self.parts]
        return dict(zip(names, outputs, strict=True))

    def _stream(self, part: str) -> Tensor:
        return self._shared if self.has_one_reader else self.streams(f"{self.name}.{part}")

    @cached_property
    def _shared(self) -> Tensor:
        return self.streams(self.name)

    @cached_property
    def _listed(self) -> list[int]:
        return [int(part[1:]) for part in self.parts if part[1:].isdigit()]

    def _of_neurons(self, part: str, stream: Tensor) -> Tensor:
        active = self.mlp.active(stream)
        counts = torch.zeros(active.shape[-1], dtype=active.dtype)
        if part == "rest":
            counts[:] = 1
            counts[self._listed] = 0
            return self.mlp.down(active * counts)
        counts[int(part[1:])] = 1
        return self.mlp.down(active * counts) - self.mlp.down(torch.zeros_like(active))

    def _of_dictionary(self, part: str, dictionary: Dictionary) -> Tensor:
        if part == "error" and not dictionary.site.is_sae:
            assert self.unpatched is not None
            return self._error(self.unpatched, dictionary)
        stream = self._stream(part)
        if part == "error":
            return self._error(stream, dictionary)
        read = self._read(stream, dictionary)
        if part == "skip":
            assert dictionary.skip is not None
            return read @ dictionary.skip.T
        active = latents_of(dictionary, read)
        if part == "rest":
            others = [i for i in range(active.shape[-1]) if i not in self._listed]
            return active[..., others] @ dictionary.decoder[others] + dictionary.decoder_bias
        number = int(part[1:])
        return active[..., number, None] * dictionary.decoder[number]

    def _error(self, stream: Tensor, dictionary: Dictionary) -> Tensor:
        read = self._read(stream, dictionary)
        return self.mlp.whole(stream) - output_of(dictionary, read)

    def _read(self, stream: Tensor, dictionary: Dictionary) -> Tensor:
        """Return what the dictionary reads."""
        hooks = {
            "hook_mlp_in": lambda stream: stream,
            "ln2.hook_normalized": self.mlp.normalized,
            "mlp.hook_in": self.mlp.normed,
            "hook_mlp_out": self.mlp.whole,
        }
        return hooks[dictionary.site.reads](stream)


@dataclass(frozen=True)
class ModuleMlp:
    """An MLP by the modules of its family.

    Attributes:
        layout: What they are called.
        block: The layer.
    """

    layout: Layout
    block: Any

    @property
    def _norm(self) -> Any:
        return getattr(self.block, self.layout.mlp_norm)

    @property
    def _after(self) -> Any:
        name = self.layout.post_mlp_norm
        return None if name is None else getattr(self.block, name)

    def normed(self, stream: Tensor) -> Tensor:
        return self._norm(stream)

    def normalized(self, stream: Tensor) -> Tensor:
        norm = getattr(self._norm, "original_component", self._norm)
        if isinstance(norm, nn.LayerNorm):
            return norm(stream)
        # Gemma adds 1 to its gain.
        adds_one = type(norm).__name__.startswith("Gemma")
        return norm(stream) / (norm.weight + 1 if adds_one else norm.weight)

    def whole(self, stream: Tensor) -> Tensor:
        output = self.layout.run_mlp(self.block, self.normed(stream))
        return output if self._after is None else self._after(output)

    def active(self, stream: Tensor) -> Tensor:
        run = self.layout.run_mlp
        active = inputs_of(self._down, lambda: run(self.block, self.normed(stream)))
        return active.reshape(*stream.shape[:-1], active.shape[-1])

    @property
    def _down(self) -> Any:
        return attrgetter(self.layout.down)(self.block)

    def down(self, active: Tensor) -> Tensor:
        return self._down(active)

    def added(self, parts: list[Tensor]) -> list[Tensor]:
        return parts if self._after is None else shares_of_norm(self._after, parts)


def shares_of_norm(norm: Any, parts: list[Tensor]) -> list[Tensor]:
    """Return each part's share of Gemma's RMS norm of their sum, all scaled alike."""
    total = torch.stack(parts).sum(dim=0)
    scale = (total.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
    return [part * scale * (1 + norm.weight) for part in parts]


def inputs_of(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Return what a module is given while something runs."""
    seen: list[Tensor] = []
    with module.register_forward_pre_hook(lambda m, args: seen.append(args[0])):
        run()
    (given,) = seen
    return given


def latents_of(dictionary: Dictionary, read: Tensor) -> Tensor:
    """Return how active the latents are, from the dictionary's tensors."""
    pre = read @ dictionary.encoder.T + dictionary.encoder_bias
    activation: Any = dictionary.activation
    if hasattr(activation, "thresholds"):
        return torch.where(pre > activation.thresholds, pre, 0.0)
    largest = pre.sort(dim=-1, descending=True).values
    kept = torch.where(pre >= largest[..., activation.k - 1, None], pre, 0.0)
    return kept.clamp(min=0) if activation.rectified else kept


def output_of(dictionary: Dictionary, read: Tensor) -> Tensor:
    """Return what a dictionary writes, from its tensors."""
    output = latents_of(dictionary, read) @ dictionary.decoder + dictionary.decoder_bias
    return output if dictionary.skip is None else output + read @ dictionary.skip.T
