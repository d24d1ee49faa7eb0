"""Tensors with a bound on how far each element is from its value in exact arithmetic.

In a context of `bounded()` every operation of PyTorch that returns floating-point elements returns
a `Ball`: what was computed (the centre), and a radius for each element. What the same operations
return in exact arithmetic, with the same weights, is within the radius. So a pass of a model is run
as it is, whatever the model, and the bound is one for exactly the operations that were made:

    the error of an operation's result <= what its inputs' errors can do + its own rounding

`rules.py` has a rule for each operation. One without a rule, and a step that depends on a value
which is not known exactly, raise `Unproved`.

Taken as exact are tensors from outside the context, such as weights, and what `torch.tensor` makes.
The context is that of one thread; a ball that is used in another one while it is open raises.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_leaves, tree_map

from circuitfind.errors import CircuitfindError
from circuitfind.rounding.moves import (
    FACTORIES,
    STRUCTURAL,
    is_rounded,
    radii_of_made,
    radii_to_move,
)
from circuitfind.rounding.numbers import Number, Unproved, rounded_off, unbounded
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
        # Outside of the context, it is what was computed. In another thread radii would be lost.
        if _OPEN:
            raise unbounded(f"{func.overloadpacket.__name__} outside of the context")
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
        Unproved: There is no bound; also where an operation fails that does not on plain tensors.
    """
    opened = object()
    _OPEN.append(opened)
    try:
        _require_usual_arithmetic()
        # Fused attention is taken apart into operations that have rules.
        with _Bounded(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    except (Unproved, CircuitfindError):
        raise
    except Exception as failed:
        said = (str(failed).splitlines() or [""])[0]
        raise Unproved(f"a pass with bounds ends in {type(failed).__name__}: {said}") from failed
    finally:
        _OPEN.remove(opened)


_OPEN: list[object] = []
"""The contexts that are open in any thread."""


def _require_usual_arithmetic() -> None:
    """Raise where PyTorch is told to compute less exactly than the rules say.

    Raises:
        Unproved: It is.
    """
    if torch.get_float32_matmul_precision() != "highest" or torch.backends.cuda.matmul.allow_tf32:
        raise Unproved("products of float32 matrices are computed with fewer digits (TF32)")
    if float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0:
        raise Unproved("numbers near 0 are taken as 0 (set_flush_denormal)")


class _Bounded(TorchDispatchMode):
    """Gives all that is computed radii."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if func._schema.is_mutable and not name.endswith("_"):
            raise unbounded(f"{name} into a given tensor")
        found = self._of(func, name, args, kwargs)
        if any(map(_is_complex, tree_leaves((args, kwargs, found)))):
            raise unbounded(f"{name} of complex numbers")
        return found

    def _of(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in FACTORIES:
            found = func(*_centres(args), **_centres(kwargs))
            return Ball(found, radii_of_made(name, args, found)) if _is_float(found) else found
        if name in STRUCTURAL:
            return _moved(func, name, args, kwargs)
        if not any(map(_is_float, tree_leaves((args, kwargs)))):
            return _of_integers(func, name, args, kwargs)
        if name not in RULES:
            with self:
                apart = COMPOSED.get(name, func.decompose)(*args, **kwargs)
            if apart is not NotImplemented:
                return apart
        return _computed(func, name, args, kwargs)


def _of_integers(func: Any, name: str, args: Any, kwargs: Any) -> Any:
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
    """Run an operation that moves elements, on what was computed and on the radii."""
    has_radii = tree_any(lambda each: isinstance(each, Ball), (args, kwargs))
    into = None
    if name.endswith("_") and (has_radii or is_rounded(name, args, args[0].dtype)):
        into = _own(name, args[0])
    found = func(*_centres(args), **_centres(kwargs))
    dtype = tree_leaves(found)[0].dtype
    if not has_radii and not (dtype.is_floating_point and is_rounded(name, args, dtype)):
        return found
    if not dtype.is_floating_point or any(isinstance(each, torch.dtype) for each in args):
        raise unbounded(f"{name} to another number type")
    radii = radii_to_move(name, args, dtype, partial(_radii, dtype=dtype))
    off = func(*radii, **_radii(kwargs, dtype))
    if into is not None:
        return into
    return Ball(found, off) if isinstance(found, Tensor) else type(found)(map(Ball, found, off))


def _own(name: str, into: Any) -> Ball:
    """Return a tensor that is written into."""
    if not isinstance(into, Ball):
        raise unbounded(f"{name} into a tensor from before")
    return into


def ends(found: Tensor) -> tuple[Tensor, Tensor]:
    """Return what was computed, and the radius of each element.

    Raises:
        Unproved: It was not computed in a context.
    """
    if not isinstance(found, Ball):
        raise Unproved("the outputs were not computed in the context of bounds")
    return found.centre, found.radius


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_complex(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_complex()


def _centres(values: Any) -> Any:
    return tree_map(lambda each: each.centre if isinstance(each, Ball) else each, values)


def _radii(values: Any, dtype: torch.dtype) -> Any:
    """Return the radii of tensors whose elements are moved into one of a number type."""

    def of(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        centre, radius = (value.centre, value.radius) if isinstance(value, Ball) else (value, None)
        if radius is None:
            radius = torch.zeros_like(centre, dtype=torch.float64)
        return radius if centre.dtype == dtype else radius + rounded_off(centre, dtype)

    return tree_map(of, values)


def _numbers(values: Any) -> Any:
    def of(value: Any) -> Any:
        if isinstance(value, Ball):
            return Number(value.centre.double(), value.radius)
        return Number(value.double(), 0.0) if isinstance(value, Tensor) else value

    return tree_map(of, values)
