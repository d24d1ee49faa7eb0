"""Turn DOT text into images, with the system's Graphviz or the one that pip installed.

`graphviz-pure` is a port of Graphviz in one program without dependencies: it draws SVG and PNG on
every machine. A system `dot` goes first where there is one, and is needed for PDF only.
"""

import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from typing import Literal

from circuitfind.errors import ReportError
from circuitfind.limits import require_fields

ImageFormat = Literal["svg", "png", "pdf"]
POINTS_PER_INCH = 72.0
SHARP = 2.0  # pixels a point
_MOST_PIXELS, _LONGEST_SIDE = 10**8, 30_000  # in all, and a side


@dataclass(frozen=True)
class Pixels:
    """Size of a PNG.

    Attributes:
        scale: Pixels a point, in units of the usual 2.
        width: Width of the whole picture in pixels; None for what follows from the scale.

    Raises:
        LimitError: One of them is outside its range.
    """

    scale: float = 1.0
    width: int | None = None

    def __post_init__(self) -> None:
        require_fields(self)


USUAL_SIZE = Pixels()


def draw_png(dot: str, size: Pixels) -> bytes:
    """Draw DOT text as PNG of a size.

    Raises:
        ReportError: The picture would be too large, or no installed program draws PNG.
    """
    if size == USUAL_SIZE:
        return render(dot, "png", SHARP * POINTS_PER_INCH)
    across, down = _points(render(dot, "svg").decode())
    per_point = SHARP * size.scale if size.width is None else size.width / across
    width, height = per_point * across, per_point * down
    if max(width, height) > _LONGEST_SIDE or width * height > _MOST_PIXELS:
        raise ReportError(
            f"the picture would have {width:.0f} x {height:.0f} pixels; at most "
            f"{_LONGEST_SIDE} a side and {_MOST_PIXELS:,} in all are drawn: give a smaller scale "
            "or width, or save as .svg, which can be enlarged"
        )
    drawn = render(dot, "png", per_point * POINTS_PER_INCH)
    if size.width is None:
        return drawn
    # Graphviz rounds the size of the page to points before it counts pixels.
    rounded = int.from_bytes(drawn[16:20], "big")
    return render(dot, "png", per_point * POINTS_PER_INCH * size.width / rounded)


def _points(svg: str) -> tuple[float, float]:
    found = re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg)
    if found is None:
        raise ReportError("Graphviz drew an SVG without a size; give no width and no scale")
    return float(found[1]), float(found[2])


def render(dot: str, image_format: ImageFormat, dpi: float | None = None) -> bytes:
    """Draw DOT text.

    Raises:
        ReportError: No installed program draws this format.
    """
    complaints = []
    for program in programs():
        sharpness = [] if dpi is None else [f"-Gdpi={dpi:.3f}"]
        command = [program, f"-T{image_format}", *sharpness]
        try:
            run = subprocess.run(command, input=dot.encode(), capture_output=True, check=False)
        except OSError as error:
            complaints.append(f"{program}: {error.strerror}")
            continue
        if run.returncode == 0 and run.stdout:
            return run.stdout
        complaints.append(f"{program}: {run.stderr.decode(errors='replace').strip()}")
    raise ReportError(
        f"cannot draw {image_format.upper()} with the Graphviz programs found here "
        f"({'; '.join(complaints) or 'none'}); save as .svg, .png or .dot, or install Graphviz "
        "(apt-get install graphviz, brew install graphviz, conda install graphviz)"
    )


def programs() -> list[str]:
    """Return the Graphviz programs found here, in the order in which they are tried."""
    scripts = sysconfig.get_path("scripts")
    found = [
        shutil.which("dot"),
        shutil.which("graphviz-pure", path=scripts) or shutil.which("graphviz-pure"),
    ]
    return [program for program in found if program]
