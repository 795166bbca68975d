"""Servers in processes of their own, and what the system tells of them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 30.0  # seconds until a server listens


@dataclass(frozen=True, slots=True)
class Server:
    """One that listens. Figures of the system's are None where it tells none (not on Linux)."""

    port: int
    pid: int

    @property
    def cpu_seconds(self) -> float | None:
        stat = Path(f"/proc/{self.pid}/stat")
        if not stat.exists():
            return None
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_mb(self) -> float | None:
        statm = Path(f"/proc/{self.pid}/statm")
        if not statm.exists():
            return None
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    *arguments: str,
    port: int,
    environment: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> Iterator[Server]:
    """`python` with these arguments, until the block ends; it listens when the block begins."""
    process = subprocess.Popen(  # noqa: S603 - our own programs
        [sys.executable, *arguments],
        env=os.environ | (environment or {}),
        stderr=subprocess.DEVNULL if quiet else None,
    )
    try:
        _await_listener(port, process)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _await_listener(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server does not listen") from None
            time.sleep(0.002)
