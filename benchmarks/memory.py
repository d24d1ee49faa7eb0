"""What this process holds in memory, for workers of any environment."""

import resource
from pathlib import Path


def resident() -> int:
    """Return the bytes held now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak() -> int:
    """Return the most bytes ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
