"""What is installed: a wheel of the source distribution, without extras, in another directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
NOT_REQUIRED = ("gguf", "ray", "hypothesis", "pytest", "playwright", "nbformat", "nbclient")
MOST_BYTES = 20_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a source distribution of what is tracked, and a wheel of that alone."""
    folder = tmp_path_factory.mktemp("build")
    source, built = folder / "source", folder / "built"
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "circuitfind", source / "circuitfind", ignore=unwanted)
    for name in NEEDED:
        shutil.copy(ROOT / name, source / name)
    (packed,) = made("build_sdist", source, built, "*.tar.gz")
    shutil.unpack_archive(packed, folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    (found,) = made("build_wheel", unpacked, built, "*.whl")
    return found


def made(what, source, out, pattern):
    code = f"from setuptools import build_meta; build_meta.{what}({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return list(out.glob(pattern))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    package = [path for path in (ROOT / "circuitfind").rglob("*") if path.is_file()]
    ours = {str(path.relative_to(ROOT)) for path in package if "__pycache__" not in path.parts}
    assert set(names) == ours
    assert wheel.stat().st_size < MOST_BYTES


def test_it_finds_a_circuit_without_extras_or_network_or_its_source(wheel, tmp_path):
    place, work = tmp_path / "environment", tmp_path / "work"
    work.mkdir()
    venv.create(place, with_pip=False)
    paths = {"base": str(place), "platbase": str(place)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    scripts = Path(sysconfig.get_path("scripts", vars=paths))
    install = ["-m", "pip", "--python", str(scripts / "python"), "install", "--quiet", "--no-deps"]
    install += ["--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    # What the package requires is taken from here, and what it does not is hidden.
    hidden = f"import sys; sys.modules.update(dict.fromkeys({NOT_REQUIRED!r}))"
    required = sysconfig.get_path("purelib")
    (packages / "required.pth").write_text(f"{hidden}\n{required}\n")
    path = os.pathsep.join([str(scripts), sysconfig.get_path("scripts")])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PATH": path}
    environment.pop("PYTHONPATH", None)

    def run(*words):
        program = [scripts / "circuitfind", *map(str, words)]
        return subprocess.run(
            program, cwd=work, env=environment, capture_output=True, text=True, check=False
        )

    found = run("discover", "ioi", "--prompts", 8, "--threshold", 0.1)
    assert found.returncode == 0, found.stderr
    assert (work / "runs").is_dir()
    (drawn,) = work.rglob("diagram.svg")
    assert b"<svg" in drawn.read_bytes()
    checked = run("doctor")
    assert f"at {packages / 'circuitfind'}" in checked.stdout, checked.stdout
