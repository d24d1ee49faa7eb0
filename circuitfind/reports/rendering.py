"""Turn DOT text into images, with the system's Graphviz or the one that pip installed.

`graphviz-pure` is a port of Graphviz in one program without dependencies: it draws SVG and PNG on
every machine. A system `dot` goes first where there is one, and is needed for PDF only.
"""

import shutil
import subprocess
import sysconfig
from typing import Literal

from circuitfind.errors import ReportError

ImageFormat = Literal["svg", "png", "pdf"]
_SHARPER = {"png": ["-Gdpi=144"]}


def render(dot: str, image_format: ImageFormat) -> bytes:
    """Draw DOT text.

    Raises:
        ReportError: No installed program draws this format.
    """
    complaints = []
    for program in _programs():
        command = [program, f"-T{image_format}", *_SHARPER.get(image_format, [])]
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
        f"({'; '.join(complaints) or 'none'}); save as .svg or .dot, or install Graphviz "
        "(apt-get install graphviz, brew install graphviz, conda install graphviz)"
    )


def _programs() -> list[str]:
    scripts = sysconfig.get_path("scripts")
    found = [
        shutil.which("dot"),
        shutil.which("graphviz-pure", path=scripts) or shutil.which("graphviz-pure"),
    ]
    return [program for program in found if program]
