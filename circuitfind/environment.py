"""What a result depends on beside what it was asked: versions of packages, and plug-ins."""

import platform
from importlib.metadata import PackageNotFoundError, version

from circuitfind.plugins import plugin_facts
from circuitfind.registry import USED

PACKAGES = ("circuitfind", "torch", "transformer_lens", "transformers", "networkx", "numpy")
"""The packages whose versions results state."""


def environment() -> dict[str, str]:
    """Return the versions that a result depends on, and the plug-ins that were loaded."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {package: version_of(package) or "unknown" for package in PACKAGES}
    return {**found, **USED, **plugin_facts()}


def version_of(package: str) -> str:
    """Return the version of an installed package; nothing of one that is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
