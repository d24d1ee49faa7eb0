"""Where an engine keeps what it remembers: in memory, or in files that stand in for memory.

Tensors in files are used like any others. The system reads what is touched, and drops it again when
memory is short. The files have no names, so whatever ends the process frees them.
"""

import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


class InMemory:
    """Leaves tensors where they are."""

    def keep(self, tensors: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """Return the same tensors."""
        return dict(tensors)


class InFiles:
    """Moves tensors of the CPU to files in a directory for temporary files.

    Args:
        folder: Where; by default `$TMPDIR`, else `/var/tmp`, which unlike `/tmp` is on a disk on
            every common system, else what Python takes.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or _on_a_disk()

    def keep(self, tensors: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """Return the same tensors, moved to one new file; what is one tensor stays one."""
        distinct = {_identity(tensor): tensor for tensor in tensors.values()}
        moved = dict(zip(distinct, self._moved(list(distinct.values())), strict=True))
        return {key: moved[_identity(tensor)] for key, tensor in tensors.items()}

    def _moved(self, tensors: list[Tensor]) -> list[Tensor]:
        sizes = [tensor.numel() * tensor.itemsize for tensor in tensors]
        if not sum(sizes):
            return tensors
        with tempfile.TemporaryFile(dir=self._folder) as file:
            # Space is taken now, so that a full disk is an error here and not a crash later.
            os.posix_fallocate(file.fileno(), 0, sum(sizes))
            bytes_ = torch.frombuffer(mmap.mmap(file.fileno(), sum(sizes)), dtype=torch.uint8)
        parts = bytes_.split(sizes)
        moved = [
            part.view(tensor.dtype).view(tensor.shape)
            for part, tensor in zip(parts, tensors, strict=True)
        ]
        for place, tensor in zip(moved, tensors, strict=True):
            place.copy_(tensor)
        return moved


TensorStore = InMemory | InFiles


def _on_a_disk() -> Path:
    """Return a directory for temporary files that is not in memory, as far as one can tell."""
    usual = Path("/var/tmp")
    if "TMPDIR" not in os.environ and usual.is_dir() and os.access(usual, os.W_OK):
        return usual
    return Path(tempfile.gettempdir())


def _identity(tensor: Tensor) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    storage = tensor.untyped_storage().data_ptr()
    return storage, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()
