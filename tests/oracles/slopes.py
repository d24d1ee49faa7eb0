"""Gradients at what every reader receives, by autograd through the oracle's run of the whole model.

Every reader's stream gets a probe of zeros added to it; the gradient at the probe is the gradient
at that reader's input, all other readers' inputs held apart. Writers can be made to write a mixture
of what they write and what they would write on the corrupted prompts. Nothing here is chunked,
shared or clever: the oracle of all attribution methods.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tests.oracles.brute_force import BruteForce, _Run, writer_outputs


class _Mixed(dict):
    """What writers write; some of it mixed with their replacement as it is written."""

    def __init__(self, shares: Mapping[str, float], replacement: Mapping[str, Tensor]) -> None:
        self.shares, self.replacement = shares, replacement

    def __setitem__(self, name: str, output: Tensor) -> None:
        share = self.shares.get(name, 1.0)
        super().__setitem__(name, share * output + (1 - share) * self.replacement[name])


class _ProbedRun(_Run):
    probes: Tensor

    def _streams(self, reader_names: list[str]) -> Tensor:
        columns = [self.graph.reader_index[name] for name in reader_names]
        return super()._streams(reader_names) + self.probes[columns].flatten(0, 1)


def slopes(
    oracle: BruteForce, loss: Callable[[Tensor], Tensor], shares: Mapping[str, float]
) -> Tensor:
    """Return d loss / d x_r [reader batch pos d_model], every edge kept.

    Args:
        oracle: The model on some prompts.
        loss: From logits [batch pos vocab] to one number.
        shares: How much of its own output each named writer writes; the rest is its replacement.
    """
    graph = oracle.graph
    run = _ProbedRun(
        oracle.model,
        oracle.family,
        oracle.ordinary,
        graph,
        graph.edge_mask,
        oracle.replacement,
        dictionaries=oracle.dictionaries,
    )
    run.written = _Mixed(shares, oracle.replacement)
    stream = oracle.ordinary.stream
    run.probes = stream.new_zeros(len(graph.readers), *stream.shape).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(run.logits()), run.probes)
    return gradient


def differences(oracle: BruteForce, tokens: Tensor, real: Tensor | None = None) -> Tensor:
    """Return what each writer would send along a cut edge less what it sends on clean prompts."""
    clean = writer_outputs(
        oracle.model, oracle.family, tokens, oracle.graph, real, oracle.dictionaries
    )
    names = [writer.name for writer in oracle.graph.writers]
    return torch.stack([oracle.replacement[name] - clean[name] for name in names])


def attribution(
    oracle: BruteForce,
    loss: Callable[[Tensor], Tensor],
    tokens: Tensor,
    shares: Mapping[str, float],
    real: Tensor | None = None,
    where: Tensor | None = None,
) -> Tensor:
    """Return the score of every pair [writer reader], slopes taken with some outputs mixed.

    Only the positions of `where` [batch pos] count, if it is given.
    """
    gradient = slopes(oracle, loss, shares)
    if where is not None:
        gradient = gradient * where[None, :, :, None]
    return torch.einsum("wbpd,rbpd->wr", differences(oracle, tokens, real), gradient)
