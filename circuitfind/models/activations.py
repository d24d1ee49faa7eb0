"""Activations of a run by the names of TransformerLens, and runs in which one of them is changed.

They come from the parts of the model, which the self-check has compared with the model itself, so
they are the same for all families, also for those whose hook points never fire or differ.
`ln2.hook_normalized` is what it was up to TransformerLens 3, with which dictionaries are trained:
of an RMS norm before its gain, of a layer norm after gain and bias.
"""

from collections.abc import Mapping

from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import ModelError
from circuitfind.graph import Block
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Added, Run, Seen, Stream, added, side_by_side

HOOKS = {
    "hook_resid_pre": "the residual stream before the block",
    "attn.hook_z": "the attended values of all heads, side by side, before W_O",
    "attn.hook_out": "the attention's output, before a norm that may follow it",
    "hook_attn_out": "what attention adds to the stream",
    "hook_resid_mid": "the residual stream between attention and MLP",
    "hook_mlp_in": "the residual stream that the MLP reads, before its norm",
    "ln2.hook_normalized": "that stream, normed; of an RMS norm before its gain",
    "mlp.hook_in": "that stream, normed, after gain and bias",
    "mlp.hook_out": "the MLP's output, before a norm that may follow it",
    "hook_mlp_out": "what the MLP adds to the stream",
    "hook_resid_post": "the residual stream after the block",
}
"""What can be looked at, by its name within a block, in the order in which it is computed."""

READ_BY_MLP = ("hook_resid_mid", "hook_mlp_in", "ln2.hook_normalized", "mlp.hook_in")
"""What follows from the stream that the MLP of a block receives."""

CHANGEABLE = tuple(hook for hook in HOOKS if hook not in READ_BY_MLP[1:])
"""What can be changed: whatever else is computed with."""

_BEFORE_NORMS = ("attn.hook_out", "mlp.hook_out")


def read_by_mlp(
    model: ResidualModel, layer: int, hook: str, stream: Stream, scale_of: Stream | None = None
) -> Float[Tensor, "batch pos d_model"]:
    """Return what is found at a hook of `READ_BY_MLP`.

    Args:
        model: The model.
        layer: The block.
        hook: Which hook.
        stream: What the MLP of the block receives.
        scale_of: A stream with whose scale the norm is applied, if not with its own. What is found
            is then affine in the stream.

    Raises:
        ModelError: The norm cannot be taken apart.
    """
    if hook in ("hook_resid_mid", "hook_mlp_in"):
        return stream
    if hook == "mlp.hook_in":
        return model.mlp_normed(layer, stream, scale_of)
    if (reading := model.reading(layer, None)) is None:
        raise ModelError(
            f"it is not known how the MLP of layer {layer} norms what it reads, so it has no {hook}"
        )
    if reading.norm.centred:
        return model.mlp_normed(layer, stream, scale_of)
    return stream * reading.norm.factor(stream if scale_of is None else scale_of)


class Activations:
    """The activations of a run.

    Args:
        model: The model.
        tokens: What it reads.
        real: True at positions that are no padding; needed by bidirectional models only.
    """

    def __init__(
        self,
        model: ResidualModel,
        tokens: Int[Tensor, "batch pos"],
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> None:
        self._model, self._real = model, real
        self._streams: dict[int, Tensor] = {}
        self._found: dict[tuple[Seen, int], Tensor] = {}
        run = Run(model, real, self._note)
        self._blocks = {(block.kind, block.layer): block for block in run.graph.blocks}
        self._final = run.run(model.embed(tokens).joint)

    def _note(self, seen: Seen, block: Block, values: Tensor) -> None:
        if seen == "entering":
            self._streams[block.stage] = values
        elif seen in ("z", "attention", "mlp"):
            self._found[seen, block.layer] = values

    @property
    def logits(self) -> Float[Tensor, "batch pos d_vocab"]:
        """The logits of the run."""
        return self._model.logits(self._final)

    def at(self, layer: int, hook: str) -> Float[Tensor, "batch pos _width"]:
        """Return the activation at a hook of a block, heads side by side.

        Raises:
            ModelError: The model has no such block, or does not compute it.
        """
        block = self._block(layer, hook)
        if hook in READ_BY_MLP:
            return read_by_mlp(self._model, layer, hook, self._streams[block.stage])
        if hook == "hook_resid_pre":
            return self._streams[block.stage]
        if hook == "hook_resid_post":
            return self._streams[self._after(block)]
        if hook == "attn.hook_z":
            return side_by_side(self._found["z", layer])
        return self._found["mlp" if block.kind == "mlp" else "attention", layer]

    def given(self, block: Block) -> Tensor:
        """Return what the units of a block are given (`models.units`)."""
        if block.kind == "attention":
            return self._found["z", block.layer]
        if block.kind == "stream" and block.units is not None:
            return self.at(block.layer, f"hook_{block.units.of}")
        return self.at(block.layer, "hook_mlp_in")

    def logits_with(
        self, layer: int, hook: str, values: Float[Tensor, "batch pos _width"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the logits of a run that continues with other values at a hook of a block.

        Args:
            layer: The block.
            hook: A hook of `CHANGEABLE`.
            values: What is computed with instead.

        Raises:
            ModelError: The model has no such block, or does not compute it.
        """
        block = self._block(layer, hook)
        if hook == "hook_resid_post":
            final = Run(self._model, self._real).run(values, self._after(block))
        elif hook in ("hook_resid_pre", "hook_resid_mid"):
            final = Run(self._model, self._real).run(values, block.stage)
        else:
            if hook == "attn.hook_z":
                heads = self._found["z", layer]
                by_head = values.unflatten(-1, (len(heads), -1)).permute(2, 0, 1, 3)
                values = added(self._model, block, by_head)
            final = _Changed(self._model, self._real, {block.name: values}).run(
                self._streams[block.stage], block.stage
            )
        return self._model.logits(final)

    def _block(self, layer: int, hook: str) -> Block:
        """Return the block of a hook: the attention's for what surrounds the whole block."""
        attention = self._blocks.get(("attention", layer))
        if attention is None:
            layers = max(block.layer for block in self._blocks.values() if block.kind != "logits")
            raise ModelError(f"the model has no layer {layer}; its layers are 0 to {layers}")
        if hook in _BEFORE_NORMS and attention.coupled:
            raise ModelError(
                f"the model norms what is found at {hook} before it adds it to the stream, so it "
                "cannot be changed there; use a dictionary of hook_mlp_out or hook_attn_out"
            )
        mlp = self._blocks.get(("mlp", layer))
        if hook == "hook_resid_post":
            return mlp or attention
        if hook.startswith(("hook_resid_pre", "attn.", "hook_attn")):
            return attention
        if mlp is None:
            raise ModelError(f"layer {layer} of the model has no MLP")
        return mlp

    def _after(self, block: Block) -> int:
        """Return the stage that follows a block."""
        return min(stage for stage in self._streams if stage > block.stage)


class _Changed(Run):
    """A run in which some blocks add other values to the stream."""

    def __init__(
        self,
        model: ResidualModel,
        real: Bool[Tensor, "batch pos"] | None,
        instead: Mapping[str, Tensor],
    ) -> None:
        super().__init__(model, real)
        self._instead = instead

    def added(self, block: Block, stream: Stream) -> Added:
        found = self._instead.get(block.name)
        return super().added(block, stream) if found is None else found
