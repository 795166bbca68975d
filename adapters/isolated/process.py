"""An engine's process: its start, its end, and the channel to it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import weakref

from adapters.isolated.channel import Channel

_LAST_BREATH = 0.5  # seconds from a kill, or the end of a channel, to the end of its process
_LOOK = 0.005  # seconds between two looks whether it has ended


_living: "weakref.WeakSet[EngineProcess]" = weakref.WeakSet()


def kill_all() -> None:
    """For a server that ends at once."""
    for process in tuple(_living):
        process.kill()


class EngineProcess:
    """A fresh interpreter: Metal and CUDA don't survive a fork."""

    def __init__(self, popen: "subprocess.Popen[bytes]", channel: Channel) -> None:
        self._popen = popen
        self.channel = channel
        _living.add(self)

    @classmethod
    async def start(cls, name: str) -> "EngineProcess":
        """name: what a list of processes shows besides the program. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                popen = _popen(theirs, name)
            except OSError:
                ours.close()
                raise
        return cls(popen, await Channel.over(ours))

    @property
    def pid(self) -> int:
        return self._popen.pid

    async def ended(self, patience: float) -> bool:
        """Whether it ends within so many seconds."""
        deadline = time.monotonic() + patience
        while self._popen.poll() is None:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_LOOK)
        return True

    def kill(self) -> None:
        self._popen.kill()

    async def end(self) -> None:
        """At once, whatever it does."""
        self.kill()
        self.channel.close()
        await self.ended(_LAST_BREATH)

    async def fate(self) -> str:
        """How it ended, in a few words, once its channel has."""
        await self.ended(_LAST_BREATH)
        code = self._popen.poll()
        if code is None:
            return "it broke off the connection"
        if code >= 0:
            return f"exit code {code}"
        hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"signal {-code}, {signal.Signals(-code).name}{hint}"


def _popen(end: socket.socket, name: str) -> "subprocess.Popen[bytes]":
    """A session of its own, as Ctrl-C in a terminal is for the server, which drains first. Its
    standard output is the server's standard error: nothing but answers belongs to the other.
    """
    modules = os.pathsep.join(path for path in sys.path if path)
    fd = str(end.fileno())
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "adapters.isolated.child", fd, name],
        stdin=subprocess.DEVNULL,
        stdout=2,
        pass_fds=[end.fileno()],
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": modules},
    )
