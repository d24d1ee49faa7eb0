from tests.cli.conftest import cli, program

__all__ = ["cli", "program"]
