"""A metric of your own, in a file that any command takes as a plug-in.

    circuitfind discover ioi --metric confidence --threshold 0.01 --plugin examples/confidence.py

A plug-in is code. Name only files that you trust.
"""

import torch

import circuitfind as cf
from circuitfind.metrics import METRICS


def confidence(logits: torch.Tensor, prompts: cf.PromptPairs, full: torch.Tensor) -> torch.Tensor:
    """Return the probability of the first right answer, for each prompt."""
    probability = logits.softmax(-1).gather(-1, prompts.answers[:, :, :1])
    return probability[:, 0, 0]


METRICS.add(
    cf.Metric(
        "confidence",
        "probability",
        "higher",
        confidence,
        needs="right",
        summary="probability of the right answer",
    )  # fmt: skip
)
