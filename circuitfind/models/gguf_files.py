"""GGUF files: models of llama.cpp, whose weights are mostly quantised.

transformers reads them with the package `gguf` and dequantises every weight, so a search computes
with float32 numbers that are exactly the values that the file stands for.
"""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

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


def require_gguf(path: Path) -> Counter[str]:
    """Return how many weights a GGUF file stores in each type; refuse any other file.

    Raises:
        ModelError: The package `gguf` is missing, or the file is damaged or holds no weights.
    """
    if find_spec("gguf") is None:
        raise ModelError(
            f"{shortened(path.name)} is a GGUF file, and the package that reads them is missing; "
            "install it: pip install 'circuitfind[gguf]'"
        )
    import gguf

    with refusing(f"{shortened(path.name)} is not a whole GGUF file"):
        sizes: Counter[str] = Counter()
        for tensor in gguf.GGUFReader(path).tensors:
            sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    if not sizes:
        raise ModelError(f"{shortened(path.name)} holds no weights; give a model's GGUF file")
    return sizes
