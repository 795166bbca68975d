"""Times in which this process did not run: it was stopped, or its machine slept."""

import asyncio
import time

_TICK = 0.5  # seconds between two looks
_STOOD_STILL = 1.5  # seconds without one


class Standstill:
    """Tells silence from not having listened. Lives on one event loop, until it is stopped."""

    def __init__(self) -> None:
        self._ticked = self._ended = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def last_heard(self, sign: float) -> float:
        """The monotonic time from which silence counts, after a last sign of life at `sign`. What
        came in a standstill is heard only after it.
        """
        now = time.monotonic()
        return now if now - self._ticked > _STOOD_STILL else max(sign, self._ended)

    def stop(self) -> None:
        """Harmless when repeated."""
        self._timer.cancel()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked > _STOOD_STILL:
            self._ended = now
        self._ticked = now
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)
