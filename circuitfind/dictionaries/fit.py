"""Does a dictionary fit a model, and how well does it reconstruct what the model computes?

Nothing in a file proves that a dictionary was trained on this model, with these hook points, or
that its scale was folded in rightly. The error of its reconstruction on real activations shows it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.errors import DictionaryError, ModelError, quoted, require_kind
from circuitfind.models.activations import Activations
from circuitfind.models.base import ResidualModel

LEAST_EXPLAINED = 0.75
"""Share of the variance below which a dictionary is said to reconstruct badly."""

_POSITIONS = 2048
"""How many positions are run at once, padding included."""


@dataclass(frozen=True)
class Fit:
    """How well a dictionary reconstructs what a model computes.

    Attributes:
        n_positions: On how many positions it was measured.
        variance_explained: 1 minus the squared error over the squared distance from the mean.
        mean_active: How many latents are active at a position, on average (L0).
        alive: Share of latents that are active at any position.
        loss_added: How much the loss of the next token rises if the reconstruction takes the place
            of what is reconstructed, in nats per token; None for models that see later tokens.
        loss_added_by_zero: The same with zeros in its place.
    """

    n_positions: int
    variance_explained: float
    mean_active: float
    alive: float
    loss_added: float | None
    loss_added_by_zero: float | None

    def __str__(self) -> str:
        said = (
            f"explains {self.variance_explained:.1%} of the variance with {self.mean_active:.1f} "
            f"latents at a position; {self.alive:.0%} of its latents are active somewhere"
        )
        if self.loss_added is None:
            return said
        return (
            f"{said}; in its place the loss changes by {self.loss_added:+.3f} nats per token, with "
            f"zeros in its place by {self.loss_added_by_zero:+.3f}"
        )

    @property
    def is_poor(self) -> bool:
        """Whether the reconstruction is so far off that much of it is error."""
        return not self.variance_explained >= LEAST_EXPLAINED

    def warning(self, dictionary: Dictionary) -> str | None:
        """Return what a user is to be told of a poor dictionary; None if it is not poor."""
        if not self.is_poor:
            return None
        source = dictionary.trained_on
        trained = f" (its file says {quoted(source)})" if source else ""
        return (
            f"the dictionary {quoted(dictionary.name)} reconstructs {dictionary.site} badly: it "
            f"{self}; check that it was trained on this model{trained} and at this site, or expect "
            "its error to matter"
        )


def measure_fit(
    model: ResidualModel,
    dictionary: Dictionary,
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
) -> Fit:
    """Measure how well a dictionary reconstructs what a model computes.

    Args:
        model: The model.
        dictionary: The dictionary.
        tokens: What the model reads, such as the clean prompts.
        real: True at positions that are no padding; by default all.

    Raises:
        DictionaryError: The model has no such site, or activations there have another width.
        MethodError: One of them is not a model, or not a dictionary.
    """
    require_kind(model, ResidualModel, "a model; give what `load_model` returned")
    require_kind(dictionary, Dictionary, "a dictionary; give one that `load_dictionaries` returned")
    real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
    measured = dictionary.to(model.dtype, model.device)
    sums = _Sums(measured)
    with torch.no_grad():
        for some, seen in in_chunks(tokens, real):
            sums.add(model, some.to(model.device), seen.to(model.device))
    return sums.fit()


def in_chunks(
    tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"]
) -> Iterable[tuple[Int[Tensor, "_some pos"], Bool[Tensor, "_some pos"]]]:
    """Return prompts in as many rows at once as fit in memory."""
    rows = max(1, _POSITIONS // tokens.shape[1])
    return zip(tokens.split(rows), real.split(rows), strict=True)


class _Sums:
    """What is added up over positions, in float64."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._n, self._n_predicted, self._active = 0, 0, 0
        self._squares = self._error = 0.0
        self._mean = torch.zeros(dictionary.d_out, dtype=torch.float64)
        self._alive = torch.zeros(dictionary.n_latents, dtype=torch.bool)
        self._losses = torch.zeros(3, dtype=torch.float64)

    def add(
        self,
        model: ResidualModel,
        tokens: Int[Tensor, "batch pos"],
        real: Bool[Tensor, "batch pos"],
    ) -> None:
        dictionary, site = self._dictionary, self._dictionary.site
        run = Activations(model, tokens, real)
        read, written = site_activations(run, dictionary)
        latents = dictionary.encode(read)
        found = dictionary.decode(latents, read)
        active = (latents != 0)[real]
        self._n += len(active)
        self._active += int(active.sum())
        self._alive |= active.any(0).cpu()
        outputs = written[real].double().cpu()
        self._error += float((outputs - found[real].double().cpu()).square().sum())
        self._add_outputs(outputs)
        if model.causal:
            runs = [
                run.logits,
                run.logits_with(site.layer, site.writes, found),
                run.logits_with(site.layer, site.writes, torch.zeros_like(found)),
            ]
            follows = real[:, 1:] & real[:, :-1]
            self._n_predicted += int(follows.sum())
            self._losses += torch.stack([_loss(logits, tokens, follows) for logits in runs])

    def _add_outputs(self, outputs: Float[Tensor, "row d_out"]) -> None:
        """Add squared distances from the mean, which moves (Chan et al. 1983)."""
        before = self._n - len(outputs)
        mean = outputs.mean(0)
        apart = (mean - self._mean).square().sum() * before * len(outputs) / self._n
        self._squares += float((outputs - mean).square().sum() + apart)
        self._mean += (mean - self._mean) * len(outputs) / self._n

    def fit(self) -> Fit:
        added: list[float | None] = [None, None]
        if self._n_predicted:
            added = ((self._losses[1:] - self._losses[0]) / self._n_predicted).tolist()
        return Fit(
            n_positions=self._n,
            variance_explained=1 - self._error / self._squares if self._squares else 0.0,
            mean_active=self._active / self._n,
            alive=float(self._alive.double().mean()),
            loss_added=added[0],
            loss_added_by_zero=added[1],
        )


def site_activations(
    run: Activations, dictionary: Dictionary
) -> tuple[Float[Tensor, "batch pos d_in"], Float[Tensor, "batch pos d_out"]]:
    """Return what a dictionary reads in a run, and what it is to reconstruct.

    Raises:
        DictionaryError: The model has no such site, or activations there have another width.
    """
    site = dictionary.site
    try:
        read, written = (run.at(site.layer, hook) for hook in (site.reads, site.writes))
    except ModelError as error:
        raise DictionaryError(
            f"the dictionary {quoted(dictionary.name)} does not fit the model: {error}"
        ) from None
    widths = ((site.reads, dictionary.d_in, read), (site.writes, dictionary.d_out, written))
    for hook, width, found in widths:
        if found.shape[-1] != width:
            raise DictionaryError(
                f"the dictionary {quoted(dictionary.name)} does not fit the model: its {hook} has "
                f"the width {width:,} and that of the model {found.shape[-1]:,}; give dictionaries "
                "that were trained on this model"
            )
    return read, written


def _loss(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    follows: Bool[Tensor, "batch shorter"],
) -> Float[Tensor, ""]:
    """Return the sum of the losses of the tokens that follow others."""
    each = cross_entropy(logits[:, :-1][follows], tokens[:, 1:][follows], reduction="sum")
    return each.double().cpu()
