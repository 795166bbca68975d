"""The response of a stream, before a client that does not read, fails or leaves."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Message

from adapters.http.sse import SseResponse, frame
from domain.errors import DomainError, EngineFailed

FRAMES = [frame(f"{n}") for n in range(5)]
FAILURE = frame("failure")


class Client:
    """Reads the status and the first frame, then nothing until `reads` is set."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.left = asyncio.Event()
        self.bodies: list[bytes] = []

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            if self.bodies:
                await self.reads.wait()
            self.bodies.append(message["body"])


class Source:
    """Frames that are ready at once."""

    def __init__(self, error: Exception | None = None, *, ends: bool = True) -> None:
        self._error = error
        self._ends = ends
        self.said_all = asyncio.Event()
        self.closed = False

    async def frames(self) -> AsyncGenerator[bytes, None]:
        try:
            for data in FRAMES:
                yield data
                await asyncio.sleep(0)
            self.said_all.set()
            if self._error:
                raise self._error
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.closed = True


def failure_frame(error: DomainError) -> bytes:
    return FAILURE


def answering(client: Client, source: Source) -> "asyncio.Task[None]":
    response = SseResponse(source.frames(), failure_frame, 60.0)
    return asyncio.create_task(response({"type": "http"}, client.receive, client.send))


async def test_frames_that_wait_for_a_slow_client_are_sent_together() -> None:
    client, source = Client(), Source()
    answer = answering(client, source)
    await source.said_all.wait()
    assert client.bodies == FRAMES[:1]
    client.reads.set()
    await answer
    assert client.bodies == [FRAMES[0], FRAMES[1], b"".join(FRAMES[2:]), b""]


async def test_a_client_that_reads_gets_every_frame_at_once() -> None:
    client, source = Client(), Source()
    client.reads.set()
    await answering(client, source)
    assert client.bodies == [*FRAMES, b""]


async def test_a_failure_comes_after_all_that_was_said_before() -> None:
    client, source = Client(), Source(EngineFailed("gone"))
    answer = answering(client, source)
    await source.said_all.wait()
    client.reads.set()
    await answer
    assert b"".join(client.bodies) == b"".join(FRAMES) + FAILURE


async def test_a_client_that_leaves_without_reading_closes_the_frames() -> None:
    client, source = Client(), Source(ends=False)
    answer = answering(client, source)
    await source.said_all.wait()
    client.left.set()
    await answer
    assert source.closed
    assert client.bodies == FRAMES[:1]
