"""A process that did not run has not listened, either."""

import asyncio
import time

from application.standstill import Standstill


async def test_silence_counts_only_while_somebody_listens() -> None:
    standstill = Standstill()
    long_ago = time.monotonic() - 1000.0
    begun = standstill.last_heard(long_ago)
    assert long_ago < begun <= time.monotonic()
    await asyncio.sleep(0.02)
    sign = time.monotonic()
    assert standstill.last_heard(sign) == sign
    time.sleep(1.6)  # noqa: ASYNC251 - as when it is stopped by Ctrl-Z
    resumed = time.monotonic()
    assert standstill.last_heard(sign) >= resumed  # nothing that came meanwhile is read yet
    await asyncio.sleep(0.02)
    heard = standstill.last_heard(sign)
    assert heard >= resumed
    await asyncio.sleep(0.02)
    assert standstill.last_heard(sign) == heard  # from then on silence counts again
    standstill.stop()
