"""A fingerprint of a model's weights, so that results say which model they are of."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_SAMPLES = 4096


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return a hash of every tensor's name, shape and values.

    Of tensors with more than 4,096 entries as many evenly spaced ones count, so that the
    fingerprint of a large model takes no longer than that of a small one. It tells models and
    checkpoints apart; it is no defence against tampering.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        if flat.numel() > _SAMPLES:
            spaced = torch.linspace(0, flat.numel() - 1, _SAMPLES, dtype=torch.float64)
            flat = flat[spaced.long().to(flat.device)]
        digest.update(flat.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()[:16]
