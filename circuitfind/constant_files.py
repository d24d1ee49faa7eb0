"""Files of learned constants: a safetensors file with a tensor for each part of a graph's writers.

`[writer, place, width]`, by the name of the part (`engine.written.parts_of`): of heads and units
what their z or activation is in place of their own, of other writers what they write.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save

from circuitfind.ablations import ABLATIONS, LEARNED, Ablation, learned
from circuitfind.dictionaries.tensors import Tensors
from circuitfind.engine.written import parts_of
from circuitfind.errors import MethodError, quoted
from circuitfind.graph import Graph
from circuitfind.models.base import ResidualModel
from circuitfind.stored import read_tensors

SUFFIX = ".safetensors"


def constants_file(name: str) -> Path | None:
    """Return the path of a file of constants, if that is what the name of an ablation is."""
    return Path(name) if name.endswith(SUFFIX) else None


def ablation_name(name: str) -> str:
    """Return what an ablation is called where a file has no place."""
    return name if constants_file(name) is None else LEARNED


def require_ablation(name: str) -> None:
    """Refuse an ablation that is not known.

    Raises:
        MethodError: The message lists those that are.
    """
    if (file := constants_file(name)) is None:
        if ABLATIONS.get(name) is None and Path(name).is_dir():
            raise MethodError(
                f"the ablation {quoted(name)} is a directory; give the file of constants in it, "
                f"such as {quoted(str(Path(name) / 'constants.safetensors'))}"
            )
        ABLATIONS.find(name)
    elif not file.is_file():
        raise MethodError(
            f"there is no file {quoted(name)}; give one that `circuitfind evaluate --constants` "
            f"wrote, or choose one of {', '.join(each.name for each in ABLATIONS)}"
        )


def ablation_of(name: str, model: ResidualModel, graph: Graph) -> Ablation:
    """Return a named ablation, or that of a file of constants.

    Raises:
        MethodError: There is no such ablation, or the constants are those of another graph.
    """
    file = constants_file(name)
    return ABLATIONS.find(name) if file is None else _read(file, model, graph)


def content_of(ablation: Ablation) -> bytes:
    """Return the content of the file of an ablation's constants."""
    constants = ablation.constants or {}
    tensors = {name: values.squeeze(1).contiguous().cpu() for name, values in constants.items()}
    content: bytes = save(tensors)
    return content


def _read(file: Path, model: ResidualModel, graph: Graph) -> Ablation:
    try:
        tensors = Tensors(read_tensors(file))
        found = {}
        for part in parts_of(graph):
            tensors.sizes = {
                "writer": len(part.writers), "place": graph.n_places, "width": part.width(graph)
            }  # fmt: skip
            found[part.name] = tensors.take(part.name, "writer", "place", "width")[:, None]
        tensors.done()
    except (OSError, SafetensorError, ValueError) as error:
        raise MethodError(
            f"the constants in {quoted(str(file))} cannot be used: {error}; give the file of a "
            "circuit of this model and graph, or train it anew (circuitfind evaluate --constants)"
        ) from None
    return learned({name: v.to(model.device, model.dtype) for name, v in found.items()})
