"""Our command line, in the test's own process."""

from typer.testing import CliRunner, Result

from adapters.cli.main import app


def portico(*arguments: str, said: str = "") -> Result:
    """said: at its prompts."""
    return CliRunner().invoke(app, list(arguments), input=said)
