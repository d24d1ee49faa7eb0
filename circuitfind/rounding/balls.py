"""Tensors with a bound on how far each element is from its value in exact arithmetic.

In a context of `bounded()` every operation of PyTorch that returns floating-point numbers returns a
`Ball`: what was computed (the centre), and a radius for each element. What the same operations
return in exact arithmetic, with the same weights, is within the radius. So a pass of a model is run
as it is, whatever the model, and the bound is one for exactly the operations that were made:

    the error of an operation's result <= what its inputs' errors can do + its own rounding

`rules.py` has a rule for each operation. One without a rule, and a step that depends on a
number which is not known exactly, raise `Unproved`.

Tensors from outside the context, such as weights, are taken as exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_leaves, tree_map

from circuitfind.rounding.moves import FACTORIES, STRUCTURAL, of_radii
from circuitfind.rounding.numbers import Number, unbounded
from circuitfind.rounding.parts import COMPOSED
from circuitfind.rounding.rules import RULES, decided, radius


class Ball(Tensor):
    """A tensor with a radius for each element.

    Attributes:
        centre: What was computed.
        radius: How far each element is from its exact value at most, in float64.
    """

    centre: Tensor
    radius: Tensor

    @staticmethod
    def __new__(cls, centre: Tensor, radius: Tensor) -> "Ball":
        found = Tensor._make_wrapper_subclass(
            cls,
            centre.shape,
            strides=centre.stride(),
            storage_offset=centre.storage_offset(),
            dtype=centre.dtype,
            device=centre.device,
        )
        # What writes into a view of one must find its place in the other.
        if radius.shape != centre.shape or radius.stride() != centre.stride():
            radius = torch.empty_like(centre, dtype=torch.float64).copy_(radius)
            assert radius.stride() == centre.stride()
        found.centre, found.radius = centre, radius
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # Outside of the context, it is what was computed.
        return func(*_centres(args), **_centres(kwargs or {}))

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def tolist(self) -> NoReturn:
        raise unbounded("tolist")

    def numpy(self, *, force: bool = False) -> NoReturn:
        raise unbounded("numpy")

    def data_ptr(self) -> NoReturn:
        raise unbounded("data_ptr")

    def untyped_storage(self) -> NoReturn:
        raise unbounded("untyped_storage")


@contextmanager
def bounded() -> Iterator[None]:
    """Bound the rounding of all that is computed in this context, without gradients.

    Raises:
        Unproved: There is no bound.
    """
    # Fused attention is taken apart into operations that have rules.
    with _Bounded(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


class _Bounded(TorchDispatchMode):
    """Gives all that is computed a radius."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in FACTORIES:
            return tree_map(_exact, func(*_centres(args), **_centres(kwargs)))
        if name in STRUCTURAL:
            return _moved(func, name, args, kwargs)
        if not any(map(_is_float, tree_leaves((args, kwargs)))):
            return _of_whole_numbers(func, name, args, kwargs)
        if name not in RULES:
            with self:
                apart = COMPOSED.get(name, func.decompose)(*args, **kwargs)
            if apart is not NotImplemented:
                return apart
        return _computed(func, name, args, kwargs)


def _of_whole_numbers(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    found = func(*args, **kwargs)
    if not tree_any(_is_float, found):
        return found
    return Ball(found, radius(name, found, _numbers(args), _numbers(kwargs)))


def _computed(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Run an operation; return it with the radius that its rule gives."""
    if not name.endswith("_"):
        found = func(*_centres(args), **_centres(kwargs))
        if tree_any(_is_float, found):
            if not isinstance(found, Tensor):
                raise unbounded(name)
            return Ball(found, radius(name, found, _numbers(args), _numbers(kwargs)))
        decided(name, _numbers(args))
        return found
    into = _own(name, args[0])
    found = func(into.centre.clone(), *_centres(args[1:]), **_centres(kwargs))
    off = radius(name[:-1], found, _numbers(args), _numbers(kwargs))
    into.centre.copy_(found)
    into.radius.copy_(off)
    return into


def _moved(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Run an operation that moves numbers, on what was computed and on the radii."""
    if not tree_any(lambda each: isinstance(each, Ball), (args, kwargs)):
        return func(*args, **kwargs)
    into = _own(name, args[0]) if name.endswith("_") else None
    if name == "copy_" and args[0].dtype != args[1].dtype:
        raise unbounded("copy_ to another number type")
    found = func(*_centres(args), **_centres(kwargs))
    off = func(*of_radii(name, _radii(args)), **_radii(kwargs))
    if into is not None:
        return into
    if isinstance(found, Tensor):
        return Ball(found, off) if _is_float(found) else found
    return type(found)(map(Ball, found, off))


def _own(name: str, into: Any) -> Ball:
    """Return a tensor that is written into."""
    if not isinstance(into, Ball):
        raise unbounded(f"{name} into a tensor from before")
    return into


def ends(found: Tensor) -> tuple[Tensor, Tensor]:
    """Return what was computed, and the radius of each element."""
    ball = _exact(found)
    return ball.centre, ball.radius


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _exact(value: Any) -> Any:
    if not _is_float(value) or isinstance(value, Ball):
        return value
    return Ball(value, torch.zeros_like(value, dtype=torch.float64))


def _centres(values: Any) -> Any:
    return tree_map(lambda each: each.centre if isinstance(each, Ball) else each, values)


def _radii(values: Any) -> Any:
    def of(value: Any) -> Any:
        if isinstance(value, Ball):
            return value.radius
        return torch.zeros_like(value, dtype=torch.float64) if _is_float(value) else value

    return tree_map(of, values)


def _numbers(values: Any) -> Any:
    def of(value: Any) -> Any:
        if isinstance(value, Ball):
            return Number(value.centre.double(), value.radius)
        return Number(value.double(), 0.0) if isinstance(value, Tensor) else value

    return tree_map(of, values)
