"""GGUF files: models of llama.cpp, whose weights are mostly quantised.

transformers reads them with the package `gguf` and dequantises every weight, so a search computes
with float32 numbers that are exactly the values that the file stands for.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from circuitfind.errors import ModelError
from circuitfind.models.guards import reading, refusing, shortened

SUFFIX = ".gguf"


def only_gguf(folder: Path) -> Path | None:
    """Return the GGUF file of a directory; None if the directory has none, or has `config.json`.

    Raises:
        ModelError: It has several, or cannot be read.
    """
    with reading(folder):
        names = sorted(item.name for item in folder.iterdir())
    found = [name for name in names if name.lower().endswith(SUFFIX)]
    if not found or "config.json" in names:
        return None
    if len(found) > 1:
        raise ModelError(
            f"{shortened(str(folder))} holds {len(found)} GGUF files; give the path of one, such "
            f"as {shortened(str(folder / found[0]))}"
        )
    return folder / found[0]


@contextmanager
def opened(path: Path) -> Iterator[Counter[str]]:
    """Check a GGUF file, and let transformers read it quickly while the context lasts.

    transformers reads the same file four times (configuration, tokenizer, twice for the weights)
    and builds the table of tensor names anew for every module. `gguf` reads each token of the
    vocabulary through a memory map, which costs several times what a plain array costs. Here the
    file is read once, as a plain array, and the table is built once.

    Yields:
        How many weights the file stores in each type.

    Raises:
        ModelError: The package `gguf` is missing, or the file is damaged or holds no weights.
    """
    if find_spec("gguf") is None:
        raise ModelError(
            f"{shortened(path.name)} is a GGUF file, and the package that reads them is missing; "
            "install it: pip install 'circuitfind[gguf]'"
        )
    import gguf

    class ArrayReader(gguf.GGUFReader):  # type: ignore[misc]
        @property
        def data(self) -> Any:
            return self._array

        @data.setter
        def data(self, mapped: Any) -> None:
            self._array = np.asarray(mapped)

    with (
        patch.object(gguf, "GGUFReader", cache(ArrayReader)),
        patch.object(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
    ):
        yield _stored_sizes(path)


def _stored_sizes(path: Path) -> Counter[str]:
    import gguf

    with refusing(f"{shortened(path.name)} is not a whole GGUF file"):
        sizes: Counter[str] = Counter()
        # transformers asks by text, and a file that is asked for in two ways is read twice.
        for tensor in gguf.GGUFReader(str(path.resolve())).tensors:
            sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    if not sizes:
        raise ModelError(f"{shortened(path.name)} holds no weights; give a model's GGUF file")
    return sizes
