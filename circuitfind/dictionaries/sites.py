"""Sites: the activations that a dictionary reads and writes, by the names of TransformerLens."""

import re
from dataclasses import dataclass

from circuitfind.errors import quoted
from circuitfind.graph import LETTERS, UnitsOf
from circuitfind.models.activations import CHANGEABLE, HOOKS

_TAKEN_APART: dict[str, UnitsOf] = {
    "attn.hook_z": "attention",
    "attn.hook_out": "attention",
    "hook_attn_out": "attention",
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "mlp.hook_out": "mlp",
    "hook_mlp_out": "mlp",
}

_NAME = re.compile(r"blocks\.(\d{1,9})\.(.+)")


@dataclass(frozen=True)
class Site:
    """What a dictionary reads and writes.

    Attributes:
        layer: The block.
        reads: The activation that the encoder reads: a name of `models.activations.HOOKS`.
        writes: The activation that the decoder reconstructs; for an SAE, the one that it reads.
    """

    layer: int
    reads: str
    writes: str

    def __post_init__(self) -> None:
        for name in (self.reads, self.writes):
            if name not in HOOKS:
                raise ValueError(
                    f"it is about {quoted(name)}; dictionaries of {', '.join(HOOKS)} can be used"
                )
        order = list(HOOKS)
        if order.index(self.reads) > order.index(self.writes):
            raise ValueError(f"it reads {self.reads}, which comes after {self.writes}")
        if self.writes not in CHANGEABLE:
            raise ValueError(
                f"it reconstructs {self.writes}; dictionaries that reconstruct "
                f"{', '.join(CHANGEABLE)} can be used"
            )

    @property
    def is_sae(self) -> bool:
        """Whether it reconstructs what it reads."""
        return self.reads == self.writes

    @property
    def of(self) -> UnitsOf | None:
        """What latents take apart that write here; None where they cannot be writers of a graph."""
        return _TAKEN_APART.get(self.writes)

    @property
    def block(self) -> str:
        """The name of the block of a graph that its latents take apart."""
        return str(self) if self.of is None else f"{LETTERS[self.of]}{self.layer}"

    def __str__(self) -> str:
        written = f"blocks.{self.layer}.{self.writes}"
        return written if self.is_sae else f"blocks.{self.layer}.{self.reads} -> {written}"


def site_of(reads: str, writes: str | None = None) -> Site:
    """Return the site of full names: `blocks.3.hook_mlp_out`.

    Args:
        reads: What is read.
        writes: What is written; by default the same.

    Raises:
        ValueError: A name is none of `HOOKS` in a block, or the blocks differ.
    """
    layer, read = _parts(reads)
    into, written = _parts(reads if writes is None else writes)
    if layer != into:
        raise ValueError(
            f"it reads block {layer} and writes to block {into}; only dictionaries within one "
            "block can be used"
        )
    return Site(layer, read, written)


def _parts(name: str) -> tuple[int, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"it is about {quoted(name)}, and must be about blocks.LAYER.HOOK")
    return int(match[1]), match[2]
