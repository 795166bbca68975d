"""Server-sent events whose generators are closed at once when the client leaves."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
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


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, T], seconds: float | None = None
) -> T:
    """Do `work`, but not a moment longer than the client stays, nor than `seconds`. Raises
    ClientLeft and RequestTimedOut.

    The work is done by the task that asks for it, and begins at once: a task of its own would first
    wait until as many requests as have come are parsed.
    """
    try:
        async with time_limit(seconds), asyncio.timeout(None) as stay:
            leaving = asyncio.ensure_future(_end_with_client(receive, stay))
            try:
                return await work
            finally:
                leaving.cancel()
    except TimeoutError:
        if stay.expired():
            raise ClientLeft from None
        raise


async def _end_with_client(receive: Receive, stay: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stay.reschedule(asyncio.get_running_loop().time())


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


class _Outbox:
    """Frames on their way to the client. Those that wait there leave together.

    deliver: sends them. It has a task of its own, which begins with the first frame.
    """

    def __init__(self, deliver: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        self._deliver = deliver
        self._delivering: asyncio.Task[None] | None = None
        self._frames: deque[bytes] = deque()
        self._size = 0  # bytes, those that are being sent included
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._ended = False
        self.silent = True  # until something is put in

    @property
    def begun(self) -> bool:
        return self._delivering is not None

    @property
    def empty(self) -> bool:
        return self._size == 0

    @property
    def full(self) -> bool:
        return self._size > _MOST_WAITING

    def put(self, data: bytes) -> None:
        """Raises what `deliver` did, if it has."""
        self.silent = False
        self._frames.append(data)
        self._size += len(data)
        self._changed.set()
        if self._delivering is None:
            self._delivering = asyncio.ensure_future(self._deliver_all())
            self._delivering.add_done_callback(lambda _: self._taken.set())
        elif self._delivering.done():
            self._delivering.result()

    async def have_room(self) -> None:
        """Wait until some has been taken of what was too much."""
        while self.full and self._delivering and not self._delivering.done():
            self._taken.clear()
            await self._taken.wait()

    async def end(self) -> None:
        """Wait until all is delivered. Raises what `deliver` did."""
        self._ended = True
        self._changed.set()
        if self._delivering:
            await self._delivering

    def drop(self) -> None:
        """Nobody wants the rest."""
        if self._delivering:
            self._delivering.cancel()

    async def _deliver_all(self) -> None:
        while True:
            await self._changed.wait()
            data = self._some()
            if not data:
                return
            await self._deliver(data)
            self._size -= len(data)
            self._taken.set()
            if not self._frames and not self._ended:
                self._changed.clear()

    def _some(self) -> bytes:
        """All there is, or a good piece of it; nothing at the end."""
        if self._size <= _MOST_AT_ONCE:
            data = b"".join(self._frames)
            self._frames.clear()
            return data
        some, size = [], 0
        while self._frames and size < _MOST_AT_ONCE:
            some.append(self._frames.popleft())
            size += len(some[-1])
        return b"".join(some)


class _Pulse:
    """A comment whenever nothing was said for too long, unless something waits to be read."""

    def __init__(self, outbox: _Outbox, patience: float, reason: Callable[[], str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._outbox = outbox
        self._patience = patience
        self._reason = reason
        self._timer = self._loop.call_later(patience, self._beat)

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        if self._outbox.silent and self._outbox.empty:
            self._outbox.put(comment(self._reason()))
        self._outbox.silent = True
        self._timer = self._loop.call_later(self._patience, self._beat)


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientLeft):
            await while_connected(receive, self._write(send))

    async def _write(self, send: Send) -> None:
        outbox = _Outbox(partial(self._send, send))
        pulse = _Pulse(outbox, self._patience, self._reason)
        try:
            await self._fill(outbox)
            pulse.stop()
            await outbox.end()
        finally:
            pulse.stop()
            outbox.drop()
        await self._send(send, b"", more=False)

    async def _fill(self, outbox: _Outbox) -> None:
        try:
            await self._pull(outbox)
        except DomainError as error:
            if not outbox.begun:
                raise
            outbox.put(self._failure_frame(error))
        except Exception as error:
            if not outbox.begun:
                raise
            logger.error("a stream failed", exc_info=wordless(error))
            outbox.put(self._failure_frame(EngineFailed("The server failed.")))

    async def _pull(self, outbox: _Outbox) -> None:
        """Also while the client does not read: its lease ends with the generation, unless the
        answer is a very long one.
        """
        async with time_limit(self._seconds), aclosing(self._frames) as frames:
            async for data in frames:
                outbox.put(data)
                if outbox.full:
                    await outbox.have_room()

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        if not self._started:
            self._started = True
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
        await send({"type": "http.response.body", "body": data, "more_body": more})
