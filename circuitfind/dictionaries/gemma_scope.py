"""Gemma Scope: `params.npz`, in directories whose names say what it is about.

`gemma-scope-2b-pt-transcoders/layer_5/width_16k/average_l0_68/params.npz`: nothing in the file says
the layer or the site, so the directories must be named as they are where they come from. Arrays are
read without pickle, from an archive whose unpacked size is known before it is unpacked.
"""

import errno
import re
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError  # noqa: N812

import numpy as np
import torch
from torch import Tensor

from circuitfind.dictionaries.activations import JumpRelu
from circuitfind.dictionaries.base import DictionaryFormat
from circuitfind.dictionaries.dictionary import Dictionary
from circuitfind.dictionaries.sites import Site
from circuitfind.dictionaries.tensors import Tensors
from circuitfind.errors import quoted, shortened
from circuitfind.files import read_bytes, too_large
from circuitfind.stored import MOST_TENSOR_BYTES

_WEIGHTS = "params.npz"

_LAYER = re.compile(r"layer_(\d{1,9})")
_RELEASE = re.compile(r"(?:(.*)-)?(res|mlp|att|transcoders)(?:-canonical)?")

_SITES = {
    "res": ("hook_resid_post", "hook_resid_post"),
    "mlp": ("hook_mlp_out", "hook_mlp_out"),
    "att": ("attn.hook_z", "attn.hook_z"),
    "transcoders": ("ln2.hook_normalized", "hook_mlp_out"),
}
"""What is read and written, by the end of a release's name."""


def _read(folder: Path) -> tuple[Dictionary, ...]:
    site = _site(folder.resolve())
    tensors = Tensors(_arrays(folder / _WEIGHTS))
    encoder = tensors.take("W_enc", "d_in", "n")
    bias, thresholds = tensors.take("b_enc", "n"), tensors.take("threshold", "n")
    decoder, decoder_bias = tensors.take("W_dec", "n", "d_out"), tensors.take("b_dec", "d_out")
    tensors.done()
    found = Dictionary(
        name=str(folder),
        site=site,
        encoder=encoder.T.contiguous(),
        encoder_bias=bias,
        # A ReLU is taken as well.
        activation=JumpRelu(thresholds.clamp(min=0)),
        decoder=decoder,
        decoder_bias=decoder_bias,
    )
    return (found,)


def _site(folder: Path) -> Site:
    """Return the site that the names of directories tell.

    Raises:
        ValueError: They do not.
    """
    names = [folder.name, *(parent.name for parent in folder.parents)]
    layers = [match[1] for name in names if (match := _LAYER.fullmatch(name))]
    releases = [match[2] for name in names if (match := _RELEASE.fullmatch(name))]
    if not layers or not releases:
        raise ValueError(
            f"its directories do not say {'its layer' if releases else 'what it is about'}; name "
            "them as in Gemma Scope: gemma-scope-2b-pt-transcoders/layer_5/.../params.npz, where "
            f"the first ends in {', '.join(_SITES)}"
        )
    return Site(int(layers[0]), *_SITES[releases[0]])


def _arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an archive.

    Raises:
        OSError: It cannot be read, or would be too large.
        ValueError: It is not an archive of arrays, or one holds Python objects.
    """
    try:
        with ZipFile(BytesIO(read_bytes(path, most=MOST_TENSOR_BYTES))) as archive:
            size = sum(each.file_size for each in archive.infolist())
            if size > MOST_TENSOR_BYTES:
                raise OSError(errno.EFBIG, too_large(size, MOST_TENSOR_BYTES), str(path))
            return {
                name.removesuffix(".npy"): _array(name, archive.read(name))
                for name in archive.namelist()
            }
    except (BadZipFile, ZlibError, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path.name} cannot be read: {shortened(str(error))}") from None


def _array(name: str, content: bytes) -> Tensor:
    try:
        array = np.lib.format.read_array(BytesIO(content), allow_pickle=False)
        return torch.from_numpy(array)
    except (ValueError, TypeError, MemoryError, EOFError, SyntaxError) as error:
        raise ValueError(
            f"{quoted(name)} is not an array of numbers: {shortened(str(error))}"
        ) from None


GEMMA_SCOPE = DictionaryFormat("gemma-scope", "Gemma Scope (params.npz)", _WEIGHTS, _read)
