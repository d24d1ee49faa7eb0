"""A block taken apart into units, which write one by one: neurons, or latents of a dictionary.

    neuron i writes  activation_i(x) W_out_i         the rest is all else that the block writes
    latent i writes  f_i(x) decoder_i                the rest is what other latents write, and the
                                                     decoder's bias

A unit's activation is one number at a position, and what it writes is that number times a row that
never changes. `parts` says how the writers of a block come from the stream that an MLP receives, or
from the z of all heads, so all that is exact elsewhere (runs, cuts, gradients) holds for units too.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitfind.errors import ModelError
from circuitfind.graph import Block, Units
from circuitfind.models.activations import read_by_mlp
from circuitfind.models.base import NeuronOutputs, ResidualModel
from circuitfind.models.forward import Stream, side_by_side

Given = Float[Tensor, "*head batch pos _width"]
"""What the writers of a block compute with: the stream that an MLP receives; of attention the z of
all its heads."""


class Parts(NamedTuple):
    """What some writers of a block write, given what they receive.

    Attributes:
        activations: Of the units among them.
        wide: What each of the others writes.
    """

    activations: Float[Tensor, "batch pos _unit"]
    wide: tuple[Stream, ...]


class UnitBlock(ABC):
    """How the writers of a block with units come from what it is given.

    Args:
        model: The model.
        block: The block.
    """

    def __init__(self, model: ResidualModel, block: Block) -> None:
        assert block.units is not None
        self._model, self._layer = model, block.layer
        self.units: Units = block.units
        n = len(block.writers) - len(block.units.numbers)
        self._names = ("rest", *["skip"] * block.units.skip, "error")[:n]

    @abstractmethod
    def rows(self, units: Sequence[int]) -> Float[Tensor, "_unit d_model"]:
        """Return what units write when their activation is 1; they are counted in the block."""

    @abstractmethod
    def parts(self, given: Given, wanted: Sequence[int]) -> Parts:
        """Return what some writers write that all are given the same.

        Args:
            given: What they are given.
            wanted: The writers, counted in the block, in ascending order.
        """

    def written(
        self, units: Sequence[int], activations: Float[Tensor, "unit *any 1"]
    ) -> Float[Tensor, "unit *any d_model"]:
        """Return what units write, each for its own activations."""
        rows = self.rows(units)
        shape = len(rows), *[1] * (activations.ndim - 2), rows.shape[1]
        return activations * rows.view(shape)

    def outputs(
        self, given: Given, wanted: Sequence[int] | None = None
    ) -> Float[Tensor, "_writer batch pos d_model"]:
        """Return what some writers, or all, write that are given the same; see `parts`."""
        n = len(self.units.numbers)
        wanted = range(n + len(self._names)) if wanted is None else wanted
        activations, wide = self.parts(given, wanted)
        units = [writer for writer in wanted if writer < n]
        written = self.written(units, activations.movedim(-1, 0)[..., None])
        return torch.cat([written, torch.stack(wide)]) if wide else written

    def _chosen(self, wanted: Sequence[int]) -> tuple[list[int], list[str]]:
        """Return which units are wanted, and which of the others, by name."""
        n = len(self.units.numbers)
        return [w for w in wanted if w < n], [self._names[w - n] for w in wanted if w >= n]

    def _numbers(self, units: Sequence[int]) -> Int[Tensor, " _unit"]:
        numbers = [self.units.numbers[unit] for unit in units]
        return torch.tensor(numbers, dtype=torch.long, device=self._model.device)

    @property
    def _all(self) -> range:
        return range(len(self.units.numbers))


class Neurons(UnitBlock):
    """The neurons of an MLP; all receive one stream, whose norm they share."""

    def __init__(self, model: ResidualModel, block: Block) -> None:
        super().__init__(model, block)
        self._out = found = neurons_of(model, block.layer)
        if self.units.numbers and self.units.numbers[-1] >= found.n_neurons:
            raise ModelError(
                f"there is no neuron {self.units.numbers[-1]} in layer {block.layer}; its MLP has "
                f"the neurons 0 to {found.n_neurons - 1}"
            )

    def rows(self, units: Sequence[int]) -> Float[Tensor, "_unit d_model"]:
        return self._out.rows(self._numbers(units)).to(self._model.dtype)

    def parts(self, given: Given, wanted: Sequence[int]) -> Parts:
        model, layer = self._model, self._layer
        units, others = self._chosen(wanted)
        post = model.mlp_post(layer, model.mlp_pre(layer, given))
        found = self._out.activations(post, self._numbers(units if not others else self._all))
        if not others:
            return Parts(found, ())
        rest = model.mlp_output(layer, post) - found @ self.rows(self._all)
        return Parts(found[..., units], (rest,))


class _Dictionary(UnitBlock):
    """Units that are latents of a dictionary."""

    def __init__(self, model: ResidualModel, block: Block) -> None:
        super().__init__(model, block)
        found = model.dictionaries.get(block.name)
        if found is None:
            raise ModelError(
                f"the graph has latents of {block.name} and {model.name!r} has no dictionary "
                "there; give `with_dictionaries(model, dictionaries)`"
            )
        self._dictionary = found
        if self.units.numbers and self.units.numbers[-1] >= len(found.decoder):
            raise ModelError(
                f"there is no latent {self.units.numbers[-1]} of {block.name}; its dictionary has "
                f"the latents 0 to {len(found.decoder) - 1}"
            )

    def rows(self, units: Sequence[int]) -> Float[Tensor, "_unit d_model"]:
        return self._dictionary.decoder[self._numbers(units)]

    @abstractmethod
    def _read(self, given: Given) -> Float[Tensor, "batch pos d_in"]:
        """Return what the encoder reads, from what the block is given."""

    @abstractmethod
    def _reconstructed(self, given: Given, x: Float[Tensor, "batch pos d_in"]) -> Stream:
        """Return what the dictionary is to reconstruct, given also what its encoder reads."""

    def parts(self, given: Given, wanted: Sequence[int]) -> Parts:
        units, others = self._chosen(wanted)
        dictionary, x = self._dictionary, self._read(given)
        if not others:
            return Parts(dictionary.encode(x, self._numbers(units)), ())
        latents = dictionary.encode(x)
        found: dict[str, Stream] = {}
        if "rest" in others:
            found["rest"] = self._rest(latents)
        if dictionary.skip is not None and "skip" in others:
            found["skip"] = x @ dictionary.skip.T
        if "error" in others:
            found["error"] = self._reconstructed(given, x) - dictionary.decode(latents, x)
        return Parts(latents[..., self._numbers(units)], tuple(found[name] for name in others))

    def _rest(self, latents: Float[Tensor, "*any latent"]) -> Stream:
        """Return what the latents that are no units write, and the bias."""
        listed = self._numbers(self._all)
        others = latents.index_fill(-1, listed, 0)
        return others @ self._dictionary.decoder + self._dictionary.decoder_bias


class Transcoder(_Dictionary):
    """The latents of a transcoder: they read what the MLP reads, and stand for what it writes."""

    def _read(self, given: Given) -> Float[Tensor, "batch pos d_in"]:
        return read_by_mlp(self._model, self._layer, self._dictionary.reads, given)

    def _reconstructed(self, given: Given, x: Float[Tensor, "batch pos d_in"]) -> Stream:
        return self._model.mlp(self._layer, given)

    def added(self, stream: Stream) -> Stream:
        """Return what the block adds without its error, which nothing acts through."""
        x = self._read(stream)
        return self._dictionary.decode(self._dictionary.encode(x), x)

    def read(
        self, units: Sequence[int], streams: Float[Tensor, "_unit batch pos d_model"]
    ) -> Float[Tensor, "_unit batch pos 1"]:
        """Return the activations of units that receive a stream each."""
        x = self._read(streams.flatten(0, 1)).unflatten(0, streams.shape[:2])
        each = [
            self._dictionary.encode(one, number[None])
            for one, number in zip(x, self._numbers(units), strict=True)
        ]
        return torch.stack(each)


class OutputLatents(_Dictionary):
    """The latents of a sparse autoencoder of what the MLP adds to the stream."""

    def _read(self, given: Given) -> Float[Tensor, "batch pos d_in"]:
        return self._model.mlp(self._layer, given)

    def _reconstructed(self, given: Given, x: Float[Tensor, "batch pos d_in"]) -> Stream:
        return x


class StreamLatents(_Dictionary):
    """The latents of a sparse autoencoder of the residual stream."""

    def _read(self, given: Given) -> Float[Tensor, "batch pos d_in"]:
        return given

    def _reconstructed(self, given: Given, x: Float[Tensor, "batch pos d_in"]) -> Stream:
        return given


class AttentionLatents(_Dictionary):
    """The latents of a sparse autoencoder of what attention adds to the stream, or of its z."""

    def _read(self, given: Given) -> Float[Tensor, "batch pos d_in"]:
        if self._dictionary.reads == "attn.hook_z":
            return side_by_side(given)
        return self._model.attention_output(self._layer, given)

    def _reconstructed(self, given: Given, x: Float[Tensor, "batch pos d_in"]) -> Stream:
        if self._dictionary.reads == "attn.hook_z":
            return self._model.attention_output(self._layer, given)
        return x


def neurons_of(model: ResidualModel, layer: int) -> NeuronOutputs:
    """Return how the neurons of an MLP write.

    Raises:
        ModelError: There is no MLP, or it is not known how it is built.
    """
    if not model.shape.layers[layer].has_mlp:
        raise ModelError(f"layer {layer} of {model.name!r} has no MLP; choose other layers")
    if (found := model.neurons(layer)) is None:
        raise ModelError(
            f"it is not known how the MLP of layer {layer} of {model.name!r} is built, so its "
            "neurons cannot be told apart; choose other layers"
        )
    return found


def unit_block(model: ResidualModel, block: Block) -> UnitBlock:
    """Return how the writers of a block with units come from what it is given.

    Raises:
        ModelError: The model has no such units, or it is not known how it is built.
    """
    assert block.units is not None
    if block.units.kind == "neuron":
        return Neurons(model, block)
    if block.units.of == "attention":
        return AttentionLatents(model, block)
    if block.kind == "stream":
        return StreamLatents(model, block)
    return Transcoder(model, block) if block.has_fixed_error else OutputLatents(model, block)


def transcoder_of(model: ResidualModel, block: Block) -> Transcoder:
    """Return how the writers of a block come from the stream whose error is fixed."""
    found = unit_block(model, block)
    assert isinstance(found, Transcoder)
    return found
