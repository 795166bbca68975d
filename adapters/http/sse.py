"""Server-sent events whose generators are closed at once when the client leaves."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from application.trace import wordless
from domain.errors import DomainError, EngineFailed, RequestTimedOut

logger = logging.getLogger("portico.http")

T = TypeVar("T")

_MAX_COMMENT = 300  # characters
_MOST_AT_ONCE = 2**16  # bytes in one write
_MOST_WAITING = 2**20  # bytes for a client that does not read, before generation waits too


class ClientLeft(Exception):
    """The connection is gone; there is nobody to answer."""


def frame(data: str, event: str | None = None) -> bytes:
    """One event. `data` must be a single line, as JSON is, and so must the name of the `event`."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {data}\n\n".encode()


def comment(words: str) -> bytes:
    """What every reader of events passes over, whatever stands in the words."""
    line = "".join(char if " " <= char <= "~" else "?" for char in words[:_MAX_COMMENT])
    return f": {line}\n\n".encode()


def _waiting() -> str:
    return "waiting"


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, but not a moment longer than the client stays. Raises ClientLeft."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_until_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeft
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait((working, leaving))


async def collect(items: AsyncGenerator[T, None], seconds: float | None = None) -> list[T]:
    """All of them; the generator is closed whatever happens. Raises RequestTimedOut."""
    async with time_limit(seconds), aclosing(items):
        return [item async for item in items]


@asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncIterator[None]:
    """Raises RequestTimedOut when what is inside takes longer. None: it may."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if seconds is None or not limit.expired():
            raise
        raise RequestTimedOut(seconds) from None


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Outbox:
    """Frames on their way to the client. Those that wait there leave together."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0  # bytes
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None

    @property
    def full(self) -> bool:
        return self._size > _MOST_WAITING

    def put(self, data: bytes) -> None:
        self._frames.append(data)
        self._size += len(data)
        self._changed.set()

    async def have_room(self) -> None:
        """Wait until some has been taken of what was too much."""
        while self.full:
            self._taken.clear()
            await self._taken.wait()

    def end(self, writer: "asyncio.Task[None]") -> None:
        """Nothing more is put in: `writer` is done."""
        self._ended = True
        self._failure = None if writer.cancelled() else writer.exception()
        self._changed.set()

    async def take(self) -> bytes:
        """All there is, or a good piece of it, as soon as there is something; nothing at the end.

        Raises what the writer did, once all is taken that it had put in before.
        """
        await self._changed.wait()
        if self._failure and not self._frames:
            raise self._failure
        data = self._some()
        self._size -= len(data)
        if not self._frames and not self._ended:
            self._changed.clear()
        self._taken.set()
        return data

    def _some(self) -> bytes:
        if self._size <= _MOST_AT_ONCE:
            data = b"".join(self._frames)
            self._frames.clear()
            return data
        some, size = [], 0
        while self._frames and size < _MOST_AT_ONCE:
            some.append(self._frames.popleft())
            size += len(some[-1])
        return b"".join(some)


class SseResponse(Response):
    """Writes frames as they come.

    The first frame is awaited before the status is sent, so what goes wrong until then is
    answered with a real status. When it takes longer than `patience` seconds (a model is
    loading, a prompt is long) the status goes out with a comment, and a comment follows
    whenever nothing else was sent for that long. `reason` says what is waited for at that
    moment. What goes wrong later becomes a last frame. So does RequestTimedOut after `seconds`.

    A frame is sent as soon as it is there; those that come while the client does not read are sent
    together, when it does.

    Starlette's StreamingResponse has no `aclosing`: cancelled while it sends, its generator
    cleans up at garbage collection, and the model generates until then.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        failure_frame: Callable[[DomainError], bytes],
        patience: float,
        reason: Callable[[], str] = _waiting,
        seconds: float | None = None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._failure_frame = failure_frame
        self._patience = patience
        self._reason = reason
        self._seconds = seconds
        self._started = False
        self._silent = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientLeft):
            await while_connected(receive, self._write(send))

    async def _write(self, send: Send) -> None:
        outbox = _Outbox()
        pulling = asyncio.ensure_future(self._pull(outbox))
        pulling.add_done_callback(outbox.end)
        pulse = asyncio.ensure_future(self._pulse(send))
        try:
            while data := await outbox.take():
                await self._send(send, data)
        except DomainError as error:
            if not self._started:
                raise
            await self._send(send, self._failure_frame(error))
        except Exception as error:
            if not self._started:
                raise
            logger.error("a stream failed", exc_info=wordless(error))
            await self._send(send, self._failure_frame(EngineFailed("The server failed.")))
        finally:
            pulse.cancel()
            pulling.cancel()
            await asyncio.wait((pulling,))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pull(self, outbox: _Outbox) -> None:
        """Also while the client does not read: its lease ends with the generation, unless the
        answer is a very long one.
        """
        async with time_limit(self._seconds), aclosing(self._frames) as frames:
            async for data in frames:
                outbox.put(data)
                if outbox.full:
                    await outbox.have_room()

    async def _pulse(self, send: Send) -> None:
        while True:
            self._silent = True
            await asyncio.sleep(self._patience)
            if self._silent:
                await self._send(send, comment(self._reason()))

    async def _send(self, send: Send, data: bytes) -> None:
        self._silent = False
        if not self._started:
            self._started = True
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
        await send({"type": "http.response.body", "body": data, "more_body": True})
