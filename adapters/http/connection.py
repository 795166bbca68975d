"""One connection: uvicorn's, with deadlines, an end to how many, and errors in our own shape.

uvicorn 0.54 waits without end for a head, for a body, and for a client to read.
"""

import asyncio
import logging
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from adapters.http.errors import WireError
from adapters.http.request_facts import RequestFacts
from adapters.http.request_log import REFUSED, RequestSeen, tell, unseen
from adapters.http.tls import Handshake

logger = logging.getLogger("portico.http")

CROWDED = "crowded"  # in the state of requests that come by a connection too many

_PIECE = 2**16  # bytes that a body earns a second with, and that a client must take in time
_SEND_BUFFER = 2**18  # bytes; the kernel's own could hold whole answers for who never reads
_MOST_TOLD = 128  # connections too many that are told so; what comes beyond is closed unread
_LINGER_SECONDS = 1.0  # that a client gets to read why it was refused
_LINGER_BYTES = 2**20  # that it may send in that time
_HEADERS_TOO_LARGE = 431
_STATES_TO_ANSWER = (h11.IDLE, h11.SEND_RESPONSE)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """max_connections: beyond these, requests are answered with 503. Seconds: header_timeout for
    the head of a request, for a connection's first byte, and for TLS to be agreed on; body_timeout
    for a body to come, and one more for every 64 KiB; write_timeout for a client to take what it
    is sent, or 64 KiB of it; keep_alive_timeout between two requests.
    """

    max_connections: int = 4096
    max_header_bytes: int = 16 * 1024
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    write_timeout: float = 30.0
    keep_alive_timeout: float = 60.0


class _Deadline:
    """Calls `missed`, unless it is stopped in time. Starting it again changes nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        self._loop = loop
        self._missed = missed
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._timer is not None

    def start(self, seconds: float) -> None:
        if self._timer is None:
            self._until = self._loop.time() + seconds
            self._timer = self._loop.call_at(self._until, self._look)

    def extend(self, seconds: float) -> None:
        self._until += seconds

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._timer = None
            self._missed()


class LimitedConnection(H11Protocol):
    """Ends what takes too long, and says so where it still can."""

    def __init__(
        self,
        *args: Any,
        limits: ConnectionLimits,
        opening: Sized = (),
        seen: RequestSeen = unseen,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._opening = opening  # connections that are none yet
        self._seen = seen  # is told of requests that the application never hears of
        self._head = _Deadline(self.loop, self._head_missed)
        self._body = _Deadline(self.loop, self._body_missed)
        self._write = _Deadline(self.loop, self._write_missed)
        self._linger = _Deadline(self.loop, self._linger_missed)
        self._unsent = 0  # bytes, when it was last looked at
        self._heard = False  # something has come since the last request
        self._began = 0.0  # when it came
        self._discarded: int | None = None  # bytes that came after the connection was given up

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        excess = len(self.connections) + len(self._opening) - self._limits.max_connections
        if excess > _MOST_TOLD:  # accepted together with others, of which nobody knew yet
            transport.abort()
            return
        # Whatever the kernel does not take at once counts as not being read; nothing hides in a
        # buffer. 1, because asyncio's TLS would take 0 for always full.
        transport.set_write_buffer_limits(high=1, low=0)
        wire = transport.get_extra_info("socket")
        if wire is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if excess > 0:
            self.app_state = {**self.app_state, CROWDED: True}
        self._head.start(self._limits.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        for deadline in (self._head, self._body, self._write, self._linger):
            deadline.stop()
        self._unset_keepalive_if_required()  # uvicorn forgets to, after an error
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self.transport.abort()
            return
        if not self._heard:
            self._heard, self._began = True, time.monotonic()
        self._body.extend(len(data) / _PIECE)
        super().data_received(data)
        self._await_the_rest()

    def on_response_complete(self) -> None:
        self._heard = False
        super().on_response_complete()
        self._await_the_rest()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        self._write.stop()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when h11 can't read on, while it handles h11's exception."""
        fault = sys.exception()
        status = getattr(fault, "error_status_hint", 400)
        code = "headers_too_large" if status == _HEADERS_TOO_LARGE else "invalid_http"
        size = self._limits.max_header_bytes
        texts = {
            _HEADERS_TOO_LARGE: f"The headers are larger than {size} bytes.",
            501: f"This server can't do that: {fault}.",
        }
        self._refuse(WireError(status, texts.get(status, f"{msg} {fault}."), code=code))

    def _await_the_rest(self) -> None:
        """Of a head or a body, if something of it has come."""
        state = self.conn.their_state
        if state is h11.IDLE and self._heard and self.timeout_keep_alive_task is None:
            self._head.start(self._limits.header_timeout)
        elif state is not h11.IDLE:
            self._head.stop()
        if state is h11.SEND_BODY:
            self._body.start(self._limits.body_timeout)
        else:
            self._body.stop()

    def _head_missed(self) -> None:
        if not self._heard:
            self.transport.close()
            return
        seconds = self._limits.header_timeout
        text = f"The headers did not come within {seconds:g} s."
        self._refuse(WireError(408, text, code="request_timeout"))

    def _body_missed(self) -> None:
        seconds = self._limits.body_timeout
        text = f"The body did not come within {seconds:g} s, and one more for every 64 KiB."
        self._refuse(WireError(408, text, code="request_timeout"))

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._write.start(self._limits.write_timeout)

    def _write_missed(self) -> None:
        if self.transport.get_write_buffer_size() <= self._unsent - _PIECE:
            self._watch_writing()
            return
        logger.info("a client that does not read was cut off")
        self.transport.abort()

    def _linger_missed(self) -> None:
        self.transport.abort()

    def _refuse(self, error: WireError) -> None:
        """Answer in place of the application, whose request hears that the client is gone."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        if under_way:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in _STATES_TO_ANSWER:  # an answer has begun
            self.transport.abort()
            return
        facts = RequestFacts(f"req_{uuid.uuid4().hex}", "-", "-", self._began)
        facts.status, facts.code = error.status, error.code or ""
        self._write_answer(error, facts.id)
        self._hang_up()
        if under_way:
            self.cycle.scope["state"][REFUSED] = facts  # its own line says so
        else:
            tell(facts, self._seen)

    def _write_answer(self, error: WireError, name: str) -> None:
        answer = error.response()
        headers = [*answer.raw_headers, (b"x-request-id", name.encode()), (b"connection", b"close")]
        head = h11.Response(
            status_code=error.status, headers=headers, reason=STATUS_PHRASES[error.status]
        )
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

    def _hang_up(self) -> None:
        """But not while more is coming: closing then takes the answer back (a reset)."""
        self._discarded = 0
        self._head.stop()
        self._body.stop()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._linger.start(_LINGER_SECONDS)


class _TurnedAway(asyncio.Protocol):
    """Each connection is an open file; when there are no more, none can be taken at all."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


def connections(
    limits: ConnectionLimits, tls: ssl.SSLContext | None = None, seen: RequestSeen = unseen
) -> type[asyncio.Protocol]:
    """What uvicorn makes connections with; it calls it as it would a class."""
    opening: set[asyncio.Protocol] = set()

    def connection(server_state: ServerState, **options: Any) -> asyncio.Protocol:
        if len(server_state.connections) + len(opening) >= limits.max_connections + _MOST_TOLD:
            return _TurnedAway()
        options |= {"server_state": server_state, "limits": limits, "opening": opening}
        make = partial(LimitedConnection, seen=seen, **options)
        if tls is None:
            return make()
        return Handshake(make, tls, opening, limits.header_timeout, limits.write_timeout)

    return cast(type[asyncio.Protocol], connection)
