"""The protocol of a model: small functions over one residual stream.

Everything that differs between families (norms, rotary positions, grouped heads, soft caps, gated
MLPs) stays behind these functions; everything that a circuit needs to know (who writes what, who
reads what) stays in the engine. Heads and MLPs are asked for in three steps (read, mix, write), so
that a search which changes only a head's query input need not project its keys and values again:

    q, k, v = project(each port's stream)  ->  z = attend(q, k, v)    ->  output(z)
    pre = mlp_pre(stream)                  ->  post = mlp_post(pre)   ->  mlp_output(post)

All functions take any number of prompts, so candidates can be stacked along the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import ModelError, quoted
from circuitfind.graph import Input, SinglePort
from circuitfind.models.norms import LinearNorm
from circuitfind.models.readings import AffineMap, Reading
from circuitfind.models.vocabulary import Vocabulary
from circuitfind.shape import ModelShape


class Embedding(NamedTuple):
    """The embedding: what is added to the residual stream before the first block.

    Attributes:
        token: The token embedding, scaled and normed as the model does it.
        position: The learned position embedding, or None where the model has none.
    """

    token: Float[Tensor, "batch pos d_model"]
    position: Float[Tensor, "batch pos d_model"] | None

    @property
    def joint(self) -> Float[Tensor, "batch pos d_model"]:
        """Both together."""
        return self.token if self.position is None else self.token + self.position


class Unembedding(NamedTuple):
    """The map from the normed final stream to the logits, where it is affine.

    Attributes:
        weight: One row per token.
        bias: One number per token, or None.
    """

    weight: Float[Tensor, "d_vocab d_model"]
    bias: Float[Tensor, " d_vocab"] | None


class NeuronOutputs(NamedTuple):
    """How the neurons of an MLP write.

    Attributes:
        out: From their activations to what the MLP writes.
        norm: The norm that follows, whose scale is that of what all neurons write together; or
            None.
    """

    out: AffineMap
    norm: LinearNorm | None = None

    @property
    def n_neurons(self) -> int:
        return len(self.out.weight)

    def rows(self, neurons: Int[Tensor, " neuron"]) -> Float[Tensor, "neuron d_model"]:
        """Return what neurons add to the stream for each unit of `activations`."""
        rows = self.out.weight[neurons]
        if self.norm is None:
            return rows
        return self.norm.centre(rows.to(self.norm.gain.dtype)) * self.norm.gain

    def activations(
        self, post: Float[Tensor, "*any d_mlp"], neurons: Int[Tensor, " neuron"]
    ) -> Float[Tensor, "*any neuron"]:
        """Return the activations of neurons, times the scale of a norm that follows."""
        found = post[..., neurons]
        return found if self.norm is None else found * self.norm.apart(self.out(post)).factor


@runtime_checkable
class Latents(Protocol):
    """A dictionary, as far as a model's blocks are concerned (`circuitfind.dictionaries`)."""

    @property
    def decoder(self) -> Float[Tensor, "latent d_out"]: ...

    @property
    def decoder_bias(self) -> Float[Tensor, " d_out"]: ...

    @property
    def skip(self) -> Float[Tensor, "d_out d_in"] | None: ...

    @property
    def reads(self) -> str: ...

    @property
    def block(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(
        self, x: Float[Tensor, "*any d_in"], latents: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "*any _some"]: ...

    def decode(
        self, latents: Float[Tensor, "*any latent"], x: Float[Tensor, "*any d_in"]
    ) -> Float[Tensor, "*any d_out"]: ...


@runtime_checkable
class ResidualModel(Protocol):
    """A transformer whose components all add to one residual stream.

    Attributes:
        name: What the user called the model.
        fingerprint: A hash of the weights.
        shape: The sizes that fix the graph.
        vocabulary: The tokenizer, or None for models that read no text.
        causal: Whether a position sees only earlier ones.
        n_tokens: How many tokens the model reads.
        n_positions: How long a prompt can be.
        dtype: Type of the streams: float32, or float64 for models with float64 weights.
        weights_dtype: Type of the weights.
        device: Where the weights are.
        unembedding: What `logits` does after the final norm; None where that is not affine, as
            with a soft cap, or is done in fewer digits than the streams have.
        dictionaries: Transcoders and sparse autoencoders, by the name of the block that they take
            apart, where some were given (`models.units`).
    """

    name: str
    fingerprint: str
    shape: ModelShape
    vocabulary: Vocabulary | None
    causal: bool
    n_tokens: int
    n_positions: int
    dtype: torch.dtype
    weights_dtype: torch.dtype
    device: torch.device
    unembedding: Unembedding | None
    dictionaries: Mapping[str, Latents]

    def with_frozen_norms(self) -> "ResidualModel":
        """Return the same model, whose norms pass gradients on as with a constant scale.

        All norms do, also those of queries and keys and those that follow a block; the mean that a
        layer norm subtracts still depends on the stream. No value changes.

        Raises:
            ModelError: It is not known how the model norms.
        """
        ...

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Embedding:
        """Return what the embedding adds to the stream."""
        ...

    def project(
        self,
        layer: int,
        port: SinglePort,
        heads: Sequence[int],
        stream: Float[Tensor, "head batch pos d_model"],
        scale_of: Float[Tensor, "head batch pos d_model"] | None = None,
    ) -> Float[Tensor, "head batch pos d_head"]:
        """Return the query, key or value of each head from the stream that its port reads.

        The block's norm is applied to each stream, with the scale of `scale_of` if that is given.
        `heads` are key/value heads for ports k and v.
        """
        ...

    def attend(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        value: Float[Tensor, "head value_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last d_head"]:
        """Return each query head's mixed values, given its own query and its group's key and value.

        Queries may be given for the last positions only. Where some inputs are the same for
        several copies of the prompts, one after the other along the batch, they may be given for
        one copy. `real` marks the positions that are no padding; models with causal attention
        ignore it.
        """
        ...

    def attention_scores(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last pos"]:
        """Return what the softmax of each query head is taken of, as `attend` is given its inputs.

        Minus infinity, or nearly, where a position is not seen. Only searches that tell the moves
        inside attention apart ask for it.

        Raises:
            ModelError: The model's attention computes more than a softmax of scores, or all in one.
        """
        ...

    def output(
        self, layer: int, heads: Sequence[int], z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "head batch pos d_model"]:
        """Return what each head adds to the stream.

        Where heads share a norm (`ModelShape.heads_share_norm`), `heads` must be all of the block.
        """
        ...

    def attention_bias(self, layer: int) -> Float[Tensor, " d_model"] | None:
        """Return what the attention of a block adds that belongs to no head, or None."""
        ...

    def attention_output(
        self, layer: int, z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return what the attention of a block adds: the sum of all heads, and what is no head's.

        Args:
            layer: The block.
            z: The mixed values of all its heads.
        """
        ...

    def mlp_normed(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the normed stream that a block's MLP reads; `scale_of` is as in `project`."""
        ...

    def mlp_pre(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_pre"]:
        """Return the pre-activations of a block's MLP, those of its gate included.

        The stream is normed first; `scale_of` is as in `project`. Where it is not known how an MLP
        is built (a mixture of experts), all that it does counts as its activation function: these
        are then the normed stream, and `mlp_post` what it writes.
        """
        ...

    def mlp_post(
        self, layer: int, pre: Float[Tensor, "batch pos d_pre"]
    ) -> Float[Tensor, "batch pos d_mlp"]:
        """Return the activations of the MLP's neurons."""
        ...

    def mlp_output(
        self, layer: int, post: Float[Tensor, "batch pos d_mlp"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return what the MLP adds to the stream, given the activations of its neurons."""
        ...

    def mlp(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return what the MLP of a block adds: its three steps in one."""
        ...

    def neurons(self, layer: int) -> NeuronOutputs | None:
        """Return how the neurons of a block's MLP write, or None where that is not known."""
        ...

    def reading(self, layer: int, port: Input, head: int = 0) -> Reading | None:
        """Return how an input of a head, or of the MLP of a block, reads: its norm and weights.

        A search takes them where that saves work, and `project` or `mlp` where there are none. It
        remembers by them what it made with them, so they are the same object every time.

        Args:
            layer: The block.
            port: Which input of the head; None for the MLP's.
            head: Which head; of ports k and v a key/value head.
        """
        ...

    def final_norm(
        self, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return what the unembedding reads."""
        ...

    def logits(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        columns: Int[Tensor, " column"] | None = None,
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the logits, or only those of some tokens, from the final stream.

        The final norm is applied with the scale of `scale_of` if that is given.
        """
        ...

    def own_logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return what the model itself computes, untouched: the truth that all else is held to."""
        ...

    def own_last_logits(
        self,
        tokens: Int[Tensor, "batch pos"],
        real: Bool[Tensor, "batch pos"] | None,
        n_positions: int,
    ) -> Float[Tensor, "batch last d_vocab"]:
        """Return the same at the last positions only."""
        ...


class BaseModel:
    """Defaults of a `ResidualModel`, for what not every model has and what only saves time.

    A model that inherits them has no tokenizer, attends to earlier positions alone, adds nothing
    that belongs to no head, and has no MLPs and no final norm; its readers are given whole streams,
    and so are its MLPs, if it has a function `mlp`.
    """

    name: str
    shape: ModelShape
    n_tokens: int
    dtype: torch.dtype
    device: torch.device
    vocabulary: Vocabulary | None = None
    causal: bool = True
    unembedding: Unembedding | None = None
    dictionaries: Mapping[str, Latents] = {}
    loaded_by: Callable[[], "ResidualModel"] | None = None
    """Loads the same model again, where it has a name."""

    def __reduce__(self) -> Any:
        """Say how another process gets the model: it loads the model by its name."""
        if self.loaded_by is None:
            return super().__reduce_ex__(2)
        return self.loaded_by, ()

    def __copy__(self) -> Any:
        """Return a model that shares all weights; only another process loads them again."""
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__)
        return found

    def __repr__(self) -> str:
        shape = self.shape
        return (
            f"<{type(self).__name__} {quoted(self.name, 60)}: {shape.n_layers} layers of "
            f"{shape.heads_text} heads, width {shape.d_model}, {self.n_tokens} tokens, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}>"
        )

    def with_frozen_norms(self) -> "ResidualModel":
        """Refuse: norms may be anywhere."""
        raise ModelError(
            f"it is not known how {quoted(self.name, 60)} norms what it reads, so the rule 'norms' "
            "cannot be applied; leave it out, or give the model a function with_frozen_norms"
        )

    def own_logits(
        self, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Refuse: every model has its own."""
        raise NotImplementedError

    def own_last_logits(
        self,
        tokens: Int[Tensor, "batch pos"],
        real: Bool[Tensor, "batch pos"] | None,
        n_positions: int,
    ) -> Float[Tensor, "batch last d_vocab"]:
        """Return the last of all logits."""
        return self.own_logits(tokens, real)[:, -n_positions:]

    def attention_bias(self, layer: int) -> Float[Tensor, " d_model"] | None:
        """Return None: all that attention adds belongs to heads."""
        return None

    def attention_output(
        self, layer: int, z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the sum of what each head adds, and the bias."""
        return heads_summed(self, layer, z)

    def attention_scores(
        self,
        layer: int,
        heads: Sequence[int],
        query: Float[Tensor, "head query_batch last d_head"],
        key: Float[Tensor, "head key_batch pos d_head"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "head most_batch last pos"]:
        """Refuse: they cannot be had from `attend` alone."""
        raise ModelError(
            f"the attention of {quoted(self.name, 60)} is computed as a whole in layer {layer}, so "
            "that its moves from place to place cannot be cut one by one; leave out crossing"
        )

    def output(
        self, layer: int, heads: Sequence[int], z: Float[Tensor, "head batch pos d_head"]
    ) -> Float[Tensor, "head batch pos d_model"]:
        """Refuse: every model has its own."""
        raise NotImplementedError

    def mlp(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Refuse to run what is not there."""
        raise NotImplementedError(f"{self.name!r} has no MLP in layer {layer}")

    def mlp_normed(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the stream itself: if there is a norm, it counts as a part of the MLP."""
        return stream

    def mlp_pre(
        self,
        layer: int,
        stream: Float[Tensor, "batch pos d_model"],
        scale_of: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_pre"]:
        """Return the stream itself: all that the MLP does counts as its activation function."""
        return stream

    def mlp_post(
        self, layer: int, pre: Float[Tensor, "batch pos d_pre"]
    ) -> Float[Tensor, "batch pos d_mlp"]:
        """Return what the whole MLP adds."""
        return self.mlp(layer, pre)

    def mlp_output(
        self, layer: int, post: Float[Tensor, "batch pos d_mlp"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return that as it is."""
        return post

    def neurons(self, layer: int) -> NeuronOutputs | None:
        """Return None: all that the MLP does counts as its activation function."""
        return None

    def reading(self, layer: int, port: Input, head: int = 0) -> Reading | None:
        """Return None: whole streams are read."""
        return None

    def final_norm(
        self, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return the stream itself."""
        return stream


def heads_summed(
    model: "ResidualModel | BaseModel", layer: int, z: Float[Tensor, "head batch pos d_head"]
) -> Float[Tensor, "batch pos d_model"]:
    """Return what the attention of a block adds, head by head."""
    added = model.output(layer, range(len(z)), z).sum(0)
    bias = model.attention_bias(layer)
    return added if bias is None else added + bias
