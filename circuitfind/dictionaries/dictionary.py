"""A dictionary: many directions of which few at a time add up to an activation.

    latents = activation(encoder x + encoder_bias)
    output  = latents decoder + decoder_bias [+ skip x]

A sparse autoencoder (SAE) reconstructs the activation `x` that it reads. A transcoder reconstructs
the output of an MLP from what the MLP reads; with a skip connection, a linear map of that is added.
Formats differ in details (a bias subtracted first, scaled inputs, gates); whoever reads a file
folds them into these few tensors, so that every latent has one encoder row, one bias, and one
decoder row.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from circuitfind.dictionaries.activations import Activation, JumpRelu, TopK
from circuitfind.dictionaries.sites import Site
from circuitfind.models.fingerprint import weights_fingerprint


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A transcoder or a sparse autoencoder.

    Attributes:
        name: Where it comes from, for messages.
        site: What it reads and writes.
        encoder: What each latent reads.
        encoder_bias: Added to what it reads.
        activation: From pre-activations to activations.
        decoder: What each latent writes, when its activation is 1.
        decoder_bias: What is written when no latent is active.
        skip: The linear map of a skip connection, or None.
        trained_on: The model that it was trained on, if the file names it.
    """

    name: str
    site: Site
    encoder: Float[Tensor, "latent d_in"]
    encoder_bias: Float[Tensor, " latent"]
    activation: Activation
    decoder: Float[Tensor, "latent d_out"]
    decoder_bias: Float[Tensor, " d_out"]
    skip: Float[Tensor, "d_out d_in"] | None = None
    trained_on: str | None = None

    def __repr__(self) -> str:
        kind = "SAE" if self.site.is_sae else "transcoder"
        skip = " with a skip connection" if self.skip is not None else ""
        return f"<{kind} {self.name!r}: {self.n_latents:,} latents of {self.site}{skip}>"

    @property
    def n_latents(self) -> int:
        return len(self.encoder)

    @property
    def reads(self) -> str:
        """The activation that the encoder reads."""
        return self.site.reads

    @property
    def writes(self) -> str:
        """The activation that the decoder reconstructs."""
        return self.site.writes

    @property
    def block(self) -> str:
        """The name of the block of a graph that its latents take apart."""
        return self.site.block

    @property
    def d_in(self) -> int:
        """Width of what it reads."""
        return self.encoder.shape[1]

    @property
    def d_out(self) -> int:
        """Width of what it writes."""
        return self.decoder.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of its tensors, its site and its activation, so that results say what was used."""
        tensors = {
            f"{self.site} encoder": self.encoder,
            "encoder_bias": self.encoder_bias,
            "decoder": self.decoder,
            "decoder_bias": self.decoder_bias,
        }
        if self.skip is not None:
            tensors["skip"] = self.skip
        if isinstance(self.activation, TopK):
            tensors[f"{self.activation}"] = self.encoder_bias[:0]
        else:
            tensors["thresholds"] = self.activation.thresholds
        return weights_fingerprint(tensors)

    def pre_activations(
        self, x: Float[Tensor, "*any d_in"], latents: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "*any _some"]:
        """Return what latents read.

        Args:
            x: The activation at the site.
            latents: Which latents; by default all.
        """
        if latents is None:
            return linear(x, self.encoder, self.encoder_bias)
        return linear(x, self.encoder[latents], self.encoder_bias[latents])

    def encode(
        self, x: Float[Tensor, "*any d_in"], latents: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "*any _some"]:
        """Return how active latents are.

        A few latents cost a few rows of the encoder, except with TopK, where whether a latent is
        active depends on all others.

        Args:
            x: The activation at the site.
            latents: Which latents; by default all.
        """
        if isinstance(self.activation, JumpRelu):
            return self.activation(self.pre_activations(x, latents), latents)
        found = self.activation(self.pre_activations(x))
        return found if latents is None else found[..., latents]

    def decode(
        self, latents: Float[Tensor, "*any latent"], x: Float[Tensor, "*any d_in"]
    ) -> Float[Tensor, "*any d_out"]:
        """Return what is written.

        Args:
            latents: How active each latent is.
            x: The activation that is read, which the skip connection maps.
        """
        output = latents @ self.decoder + self.decoder_bias
        return output if self.skip is None else output + linear(x, self.skip)

    def reconstruct(self, x: Float[Tensor, "*any d_in"]) -> Float[Tensor, "*any d_out"]:
        """Return what is written for an activation: its reconstruction."""
        return self.decode(self.encode(x), x)

    def active(self, x: Float[Tensor, "*any d_in"]) -> Int[Tensor, " active"]:
        """Return which latents are active at any of some positions, in ascending order."""
        return (self.encode(x) != 0).flatten(0, -2).any(0).nonzero()[:, 0]

    def to(self, dtype: torch.dtype, device: torch.device) -> "Dictionary":
        """Return the same dictionary in another type, on another device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype)

        activation = self.activation
        if not isinstance(activation, TopK):
            activation = JumpRelu(moved(activation.thresholds))
        return replace(
            self,
            encoder=moved(self.encoder),
            encoder_bias=moved(self.encoder_bias),
            activation=activation,
            decoder=moved(self.decoder),
            decoder_bias=moved(self.decoder_bias),
            skip=None if self.skip is None else moved(self.skip),
        )

    def written_through(
        self,
        output: Callable[[Float[Tensor, "row d_out"]], Float[Tensor, "row d_model"]],
        bias: Float[Tensor, " d_model"] | None,
    ) -> "Dictionary":
        """Return this dictionary of z as one of what attention adds to the stream.

        Args:
            output: The linear map from the z of all heads to what they add.
            bias: What attention adds beside that.
        """
        with torch.no_grad():
            decoder_bias = output(self.decoder_bias[None])[0]
            return replace(
                self,
                site=replace(self.site, writes="hook_attn_out"),
                decoder=output(self.decoder),
                decoder_bias=decoder_bias if bias is None else decoder_bias + bias,
            )
