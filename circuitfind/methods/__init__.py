"""Methods: one file each, one table of them, one way to call them."""

from circuitfind.errors import MethodError
from circuitfind.methods.acdc import Acdc
from circuitfind.methods.base import Method
from circuitfind.methods.exact import Exact

METHODS: tuple[Method, ...] = (Acdc(), Exact())
"""Every method. A new one is a file of this package and a line here."""


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        MethodError: There is no such method; the message lists the known ones.
    """
    for method in METHODS:
        if method.name == name:
            return method
    known = ", ".join(method.name for method in METHODS)
    raise MethodError(f"no method named {name!r}; the methods are {known}")
