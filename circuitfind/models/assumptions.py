"""Assumptions of the engine about a model, beside that its parts add up to it.

A search runs components at a few positions only, on copies of prompts side by side, many times
over. That is right where every part but attention computes each position of each prompt by itself
and always alike, where causal attention does not see later tokens, and where a prompt is the same
beside a longer one. All of that is tried, because the parts of a model can be anything.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitfind.errors import PromptError, SelfCheckError
from circuitfind.graph import SINGLE_PORTS, Block, SinglePort
from circuitfind.models.base import ResidualModel
from circuitfind.models.forward import Run, Seen
from circuitfind.models.self_check import TOLERANCE


class _Part(NamedTuple):
    """A part of a model, and a stream that it reads."""

    name: str
    function: Callable[[Tensor], Tensor]
    stream: Float[Tensor, "batch pos d_model"]


def require_assumptions(model: ResidualModel, tokens: Int[Tensor, "batch pos"]) -> None:
    """Refuse a model whose parts look beyond one position, change with time, or see ahead.

    Raises:
        SelfCheckError: One does; the message names it.
    """
    with torch.no_grad():
        for part in _parts(model, tokens):
            _require_alike(model, part)
        if model.causal:
            _require_causal(model, tokens)


def require_prompts_alone(
    model: ResidualModel, tokens: Int[Tensor, "batch pos"], real: Bool[Tensor, "batch pos"]
) -> None:
    """Refuse prompts of different lengths where a model computes them otherwise when padded.

    Raises:
        PromptError: A shorter prompt gives other logits beside a longer one.
    """
    lengths, longest = real.sum(1), tokens.shape[1]
    for length in lengths[lengths < longest].unique().tolist():
        row = (lengths == length).nonzero()[0]
        beside = model.own_logits(tokens[row], real[row])[:, :length]
        alone = model.own_logits(tokens[row, :length], real[row, :length])
        if not _close(beside, alone, model):
            raise PromptError(
                f"{model.name!r} computes a prompt of {length} tokens otherwise beside one of "
                f"{longest}, as models do whose positions depend on the longest prompt (longrope, "
                "dynamic scaling); give prompts of one length, or split them by length"
            )


def _parts(model: ResidualModel, tokens: Tensor) -> Iterator[_Part]:
    """Yield all parts but attention, each with what it reads when nothing is patched."""
    entering: dict[int, Tensor] = {}

    def note(seen: Seen, block: Block, values: Tensor) -> None:
        if seen == "entering":
            entering[block.stage] = values

    run = Run(model, observe=note)
    final = run.run(model.embed(tokens).joint)
    for blocks in run.graph.stages:
        for block in blocks:
            stream = entering[block.stage]
            if block.kind == "mlp":
                name = f"the MLP of block {block.layer}"
                yield _Part(name, partial(model.mlp, block.layer), stream)
                continue
            for port in SINGLE_PORTS:
                name = f"the norm and {port} projection of block {block.layer}"
                yield _Part(name, partial(_projected, model, block, port), stream)
    yield _Part("the final norm and unembedding", model.logits, final)


def _projected(
    model: ResidualModel, block: Block, port: SinglePort, stream: Tensor
) -> Float[Tensor, "batch pos head d_head"]:
    return Run(model).read(block, port, stream).movedim(0, 2)


def _require_alike(model: ResidualModel, part: _Part) -> None:
    """Try a part again, and with prompts and positions in another order, the first left out."""
    whole = part.function(part.stream)
    positions = list(range(part.stream.shape[1] - 1, 0, -1)) or [0]

    def moved(values: Tensor) -> Tensor:
        return values.flip(0)[:, positions]

    if not _close(part.function(part.stream), whole, model):
        raise SelfCheckError(
            f"{part.name} of {model.name!r} is not the same when it is run again (it draws random "
            "numbers, or remembers); a search runs it many times, so make it a function of what "
            "it reads"
        )
    if not _close(part.function(moved(part.stream)), moved(whole), model):
        raise SelfCheckError(
            f"{part.name} of {model.name!r} does not treat each position of each prompt by itself; "
            "a search runs it at a few positions only, so only attention may look at others or at "
            "where it is"
        )


def _require_causal(model: ResidualModel, tokens: Tensor) -> None:
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % model.n_tokens
    before, after = (model.own_logits(some)[:, :-1] for some in (tokens, changed))
    if not _close(after, before, model):
        raise SelfCheckError(
            f"{model.name!r} sees later tokens, though its attention is said to be causal; a "
            "bidirectional model must say so in its configuration"
        )


def _close(found: Tensor, expected: Tensor, model: ResidualModel) -> bool:
    difference = (found - expected).norm()
    return bool(difference <= TOLERANCE[model.dtype] * expected.norm())
