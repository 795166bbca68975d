"""A download as a stream of progress: fetch, verify, repair once."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from adapters.huggingface.hub_errors import corrupt
from adapters.huggingface.manifest import RemoteFile
from adapters.huggingface.speed import Speed
from adapters.huggingface.transfer import Transfer
from adapters.huggingface.worker_thread import in_thread
from domain.errors import HubFailed
from domain.models import PullPhase, PullProgress

T = TypeVar("T")

_TICK = 0.2  # seconds between two progresses
_AT_ONCE = 4  # files; one connection rarely fills a fast line
_LAST_WORDS = 2.0  # seconds in which the other files' threads end when one has failed


async def fetch_and_verify(transfer: Transfer) -> AsyncGenerator[PullProgress, None]:
    """All files are here, and are what was announced, when it ends. Raises HubFailed."""
    await in_thread(transfer.begin)
    damaged: list[RemoteFile] = []
    for _ in range(2):
        speed = Speed(time.monotonic)
        fetching = _each(transfer, transfer.fetch, transfer.manifest.files)
        async with aclosing(_watch(fetching, partial(_downloading, transfer, speed))) as steps:
            async for step in steps:
                yield step
        damaged.clear()
        verifying = _verify(transfer, damaged)
        async with aclosing(_watch(verifying, partial(_verifying, transfer))) as steps:
            async for step in steps:
                yield step
        if not damaged:
            return
    raise corrupt(transfer.errand, damaged[0].name)


def done(transfer: Transfer) -> PullProgress:
    return _progress(transfer, PullPhase.DONE, transfer.arrived)


async def _verify(transfer: Transfer, damaged: list[RemoteFile]) -> None:
    files = transfer.manifest.files
    verdicts = await _each(transfer, transfer.verify, files)
    damaged += [file for file, good in zip(files, verdicts, strict=True) if not good]


async def _each(
    transfer: Transfer, work: Callable[[RemoteFile], T], files: Iterable[RemoteFile]
) -> list[T]:
    """A few at once. When one fails the others are stopped, which gives their locks back."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(file: RemoteFile) -> T:
        async with slots:
            return await in_thread(lambda: work(file))

    tasks = [asyncio.create_task(one(file)) for file in files]
    try:
        return await asyncio.gather(*tasks)
    except HubFailed:
        transfer.halt.stop()
        await asyncio.wait(tasks, timeout=_LAST_WORDS)
        raise


async def _watch(
    work: Coroutine[Any, Any, object],
    look: Callable[[], PullProgress],
) -> AsyncGenerator[PullProgress, None]:
    """What `look` sees at the start, now and then, and at the end. Raises what the work raises."""
    task = asyncio.ensure_future(work)
    try:
        yield look()
        while not task.done():
            await asyncio.wait({task}, timeout=_TICK)
            if not task.done():
                yield look()
        task.result()
        yield look()
    finally:
        task.cancel()


def _downloading(transfer: Transfer, speed: Speed) -> PullProgress:
    rate = speed.feed(sum(transfer.arrived.values()))
    return _progress(transfer, PullPhase.DOWNLOADING, transfer.arrived, rate)


def _verifying(transfer: Transfer) -> PullProgress:
    return _progress(transfer, PullPhase.VERIFYING, transfer.verified)


def _progress(
    transfer: Transfer, phase: PullPhase, counts: dict[str, int], rate: float = 0.0
) -> PullProgress:
    files = transfer.manifest.files
    return PullProgress(
        phase,
        transfer.manifest.commit,
        sum(counts.get(file.name, 0) for file in files),
        transfer.manifest.size,
        sum(counts.get(file.name, 0) == file.size for file in files),
        len(files),
        rate,
    )
