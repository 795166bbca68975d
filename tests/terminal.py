"""A program on a terminal, as somebody has it who sits before it."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping


def command(*arguments: str) -> list[str]:
    """The command line of our program."""
    return [sys.executable, "-m", "adapters.cli.main", *arguments]


def on_a_terminal(
    program: list[str], environment: Mapping[str, str], *, columns: int = 100, said: str = ""
) -> str:
    """All that was ever written there, escape sequences included. It must end well."""
    ours, its = pty.openpty()
    terminal = {"COLUMNS": str(columns), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(  # noqa: S603 - our own program
        program, stdin=its, stdout=its, stderr=its, env={**os.environ, **terminal, **environment}
    )
    os.close(its)
    os.write(ours, said.encode())
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    os.close(ours)
    assert process.wait(30) == 0, seen
    return seen.decode()


def _read(terminal: int) -> bytes:
    """What has been written to it; empty at the end."""
    try:
        return os.read(terminal, 4096)
    except OSError:  # on Linux, the other side is closed
        return b""
