"""Sizes of a model: what `circuitfind.granularity` builds a graph from."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, NamedTuple

from circuitfind.errors import GraphError, quoted

MAX_SIZE = 10**9
"""Largest of a model's sizes."""


_TRUTHS = ("has_mlp", "parallel_mlp", "heads_share_norm", "learned_positions")
"""The fields of a `ModelShape` that are true or false; the others are whole numbers."""


class LayerShape(NamedTuple):
    """The sizes of one layer; `ModelShape` says what they are."""

    n_heads: int
    n_kv_heads: int
    has_mlp: bool
    parallel_mlp: bool

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key/value head."""
        return self.n_kv_heads < self.n_heads

    @property
    def heads_per_kv_head(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def has_mid(self) -> bool:
        """Whether an MLP reads what the attention of the layer writes."""
        return self.has_mlp and not self.parallel_mlp


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that fix its graph.

    Layers may differ: the number of heads, and whether there is an MLP and where it reads, are
    given once for all layers or as a tuple with a value for each.

    Attributes:
        n_layers: Number of layers.
        n_heads: Query heads of a layer.
        n_kv_heads: Key/value heads of a layer; fewer than `n_heads` means grouped queries.
        d_model: Width of the residual stream.
        d_head: Width of one head.
        d_vocab: Number of logits per position.
        has_mlp: Whether a layer has an MLP at all.
        parallel_mlp: Whether a layer's MLP reads the same stream as its attention.
        heads_share_norm: Whether the sum of a layer's heads is normalised before it is added
            (Gemma 2). A head's output then depends, through the scale of that norm, on all heads
            of its layer.
        learned_positions: Whether a position embedding is added to the token embedding.
    """

    n_layers: int
    n_heads: int | tuple[int, ...]
    n_kv_heads: int | tuple[int, ...]
    d_model: int
    d_head: int
    d_vocab: int
    has_mlp: bool | tuple[bool, ...] = True
    parallel_mlp: bool | tuple[bool, ...] = False
    heads_share_norm: bool = False
    learned_positions: bool = False

    def __post_init__(self) -> None:
        self._require_types()
        if self.n_layers >= 1:
            for name in LayerShape._fields:
                self._require_one_a_layer(name)
        sizes = [self.n_layers, self.d_model, self.d_head, self.d_vocab]
        sizes += [*self._values("n_heads"), *self._values("n_kv_heads")]
        if max(sizes) > MAX_SIZE:
            raise GraphError(
                "one of its sizes is larger than that of any model; "
                f"at most {MAX_SIZE:,} is allowed"
            )
        if min(sizes) < 1:
            raise GraphError(f"a model's sizes are positive integers, not {self}")
        for layer in self.layers if self.differs else [self._layer(0)]:
            if layer.n_heads % layer.n_kv_heads:
                raise GraphError(
                    f"{layer.n_heads} query heads cannot be shared out evenly over "
                    f"{layer.n_kv_heads} key/value heads"
                )

    def _require_types(self) -> None:
        for each in fields(self):
            kind = bool if each.name in _TRUTHS else int
            given: object = getattr(self, each.name)
            values = given if each.name in LayerShape._fields else (given,)
            # A truth value is a whole number too, but not a size.
            for value in values if isinstance(values, tuple) else (values,):
                if type(value) is not kind:
                    what = "True or False" if kind is bool else "a whole number"
                    tuples = ", or a tuple of such" * (each.name in LayerShape._fields)
                    raise GraphError(f"{each.name} must be {what}{tuples}, not {quoted(given)}")

    def _require_one_a_layer(self, name: str) -> None:
        """Check that values are one for each layer; one value stands for equal ones."""
        values = getattr(self, name)
        if isinstance(values, tuple):
            if len(values) != self.n_layers:
                raise GraphError(
                    f"{name} has {len(values)} values and the model {self.n_layers:,} layers; "
                    "give one value, or one for each layer"
                )
            if len(set(values)) == 1:
                object.__setattr__(self, name, values[0])

    def _values(self, name: str) -> tuple[int, ...]:
        values = getattr(self, name)
        return values if isinstance(values, tuple) else (values,)

    def _layer(self, layer: int) -> LayerShape:
        values = (getattr(self, name) for name in LayerShape._fields)
        return LayerShape(*(each[layer] if isinstance(each, tuple) else each for each in values))

    @cached_property
    def layers(self) -> tuple[LayerShape, ...]:
        """The sizes of each layer."""
        return tuple(self._layer(layer) for layer in range(self.n_layers))

    @property
    def differs(self) -> bool:
        """Whether layers have different sizes."""
        return any(isinstance(getattr(self, name), tuple) for name in LayerShape._fields)

    def total(self, name: Literal["n_heads", "n_kv_heads", "has_mlp"]) -> int:
        """Return the sum of a size over all layers."""
        values = self._values(name)
        return sum(values) * (self.n_layers if len(values) == 1 else 1)

    @property
    def grouped(self) -> bool:
        """Whether query heads share a key/value head in any layer."""
        layers = self.layers if self.differs else (self._layer(0),)
        return any(layer.grouped for layer in layers)

    @property
    def heads_apart(self) -> "ModelShape":
        """The same sizes where heads share neither keys and values nor a norm of their sum."""
        return replace(self, n_kv_heads=self.n_heads, heads_share_norm=False)

    @property
    def heads_text(self) -> str:
        """Number of heads of the layers, for messages: `8`, or `4, 2, 4`."""
        return ", ".join(f"{n:,}" for n in self._values("n_heads"))
