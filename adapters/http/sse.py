"""Server-sent events whose generators are closed at once when the client leaves."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from application.trace import wordless
from domain.errors import DomainError, EngineFailed

logger = logging.getLogger("portico.http")

T = TypeVar("T")

_MAX_COMMENT = 300  # characters


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


async def collect(items: AsyncGenerator[T, None]) -> list[T]:
    """All of them; the generator is closed whatever happens."""
    async with aclosing(items):
        return [item async for item in items]


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Outbox:
    """Frames on their way to the client. Those that wait there leave together."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._changed = asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None

    def put(self, data: bytes) -> None:
        self._frames.append(data)
        self._changed.set()

    def end(self, writer: "asyncio.Task[None]") -> None:
        """Nothing more is put in: `writer` is done."""
        self._ended = True
        self._failure = None if writer.cancelled() else writer.exception()
        self._changed.set()

    async def take(self) -> bytes:
        """All there is, as soon as there is something; nothing at the end.

        Raises what the writer did, once all is taken that it had put in before.
        """
        await self._changed.wait()
        if not self._ended:
            self._changed.clear()
        elif self._failure and not self._frames:
            raise self._failure
        data = b"".join(self._frames)
        self._frames.clear()
        return data


class SseResponse(Response):
    """Writes frames as they come.

    The first frame is awaited before the status is sent, so what goes wrong until then is
    answered with a real status. When it takes longer than `patience` seconds (a model is
    loading, a prompt is long) the status goes out with a comment, and a comment follows
    whenever nothing else was sent for that long. `reason` says what is waited for at that
    moment. What goes wrong later becomes a last frame.

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
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._failure_frame = failure_frame
        self._patience = patience
        self._reason = reason
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
        """Also while the client does not read: its lease ends with the generation."""
        async with aclosing(self._frames) as frames:
            async for data in frames:
                outbox.put(data)

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
