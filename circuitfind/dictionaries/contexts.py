"""What makes latents active: the tokens and the contexts at which they are most active."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.fit import in_chunks, site_activations
from circuitfind.models.activations import Activations
from circuitfind.models.base import ResidualModel


class Context(NamedTuple):
    """A position at which a latent is active.

    Attributes:
        prompt: The row of the prompt.
        position: The position in it.
        activation: How active the latent is there.
    """

    prompt: int
    position: int
    activation: float


class ActiveToken(NamedTuple):
    """A token at which a latent is active.

    Attributes:
        token: The token at the position itself.
        activation: How active the latent is at it, on average.
        share: Share of the latent's whole activation that falls on this token.
    """

    token: int
    activation: float
    share: float


class LatentUse(NamedTuple):
    """What makes a latent active.

    Attributes:
        latent: Its index.
        frequency: Share of the positions at which it is active.
        tokens: The tokens on which most of its activation falls, the first the most.
        contexts: The positions at which it is most active: of each prompt the strongest, and of
            prompts that are the same up to there the first.
    """

    latent: int
    frequency: float
    tokens: tuple[ActiveToken, ...]
    contexts: tuple[Context, ...]


def latent_uses(
    model: ResidualModel,
    dictionary: Dictionary,
    latents: Sequence[int],
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"] | None = None,
    *,
    n_shown: int = 5,
) -> tuple[LatentUse, ...]:
    """Return what makes some latents active on some prompts.

    It keeps a number for every latent and position.

    Args:
        model: The model.
        dictionary: The dictionary.
        latents: Which of its latents.
        tokens: The prompts.
        real: True at positions that are no padding; by default all.
        n_shown: Largest number of tokens, and of contexts, of each latent.

    Raises:
        DictionaryError: The dictionary does not fit the model.
    """
    real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
    measured = dictionary.to(model.dtype, model.device)
    chosen = torch.tensor(list(latents), dtype=torch.long, device=model.device)
    found = []
    with torch.no_grad():
        for some, seen in in_chunks(tokens, real):
            run = Activations(model, some.to(model.device), seen.to(model.device))
            read, _ = site_activations(run, measured)
            found.append(measured.encode(read, chosen).cpu().masked_fill(~seen[..., None], 0))
    active = torch.cat(found).movedim(-1, 0)
    pairs = zip(latents, active, strict=True)
    return tuple(_use(latent, each, tokens, real, n_shown) for latent, each in pairs)


def _use(
    latent: int,
    active: Float[Tensor, "batch pos"],
    tokens: Int[Tensor, "batch pos"],
    real: Bool[Tensor, "batch pos"],
    n_shown: int,
) -> LatentUse:
    values, places = active.max(dim=1)
    contexts: dict[tuple[int, ...], Context] = {}
    for row in values.argsort(descending=True, stable=True).tolist():
        if len(contexts) == n_shown or values[row] <= 0:
            break
        place = int(places[row])
        # Prompts that begin alike are the same context up to there.
        text = tuple(tokens[row, : place + 1].tolist())
        contexts.setdefault(text, Context(row, place, float(values[row])))
    frequency = float((active != 0).sum() / real.sum())
    return LatentUse(latent, frequency, _tokens(active, tokens, n_shown), (*contexts.values(),))


def _tokens(
    active: Float[Tensor, "batch pos"], tokens: Int[Tensor, "batch pos"], n_shown: int
) -> tuple[ActiveToken, ...]:
    where = active > 0
    kinds, places = tokens[where].unique(return_inverse=True)
    sums = torch.zeros(len(kinds), dtype=torch.float64)
    sums.index_add_(0, places, active[where].double())
    means = sums / torch.bincount(places, minlength=len(kinds)).clamp(min=1)
    order = sums.argsort(descending=True, stable=True)[:n_shown].tolist()
    shares = sums / sums.sum()
    return tuple(ActiveToken(int(kinds[i]), float(means[i]), float(shares[i])) for i in order)
