"""Waiting for what another thread, task or process brings about."""

import asyncio
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it came to that."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """The same, while the loop goes on: how many seconds it took. It must come to that."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it never came to that"
        await asyncio.sleep(0.01)
    return time.monotonic() - began
