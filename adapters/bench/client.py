"""Asking a server: one connection for each request, opened before the clock starts.

During a run nothing is done with what arrives but to note when; it is understood afterwards.
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from adapters.bench.reply import Exchange, Failure
from adapters.bench.wire import BadResponse, Decoder

Endpoint = Literal["chat", "completions"]

_PATHS = {"chat": "/chat/completions", "completions": "/completions"}


class BadServer(Exception):
    """There is no such server, or it doesn't tell what it should."""


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    url: str  # with the path before /chat/completions
    model: str = ""
    api_key: str = ""

    @classmethod
    def parse(cls, text: str, *, name: str = "", model: str = "", api_key: str = "") -> "Server":
        """`[NAME=][http[s]://][KEY@]HOST[:PORT][/PATH][#MODEL]`; the path is /v1 unless given.

        What the text names wins over the arguments. Raises BadServer.
        """
        before, equals, after = text.partition("=")
        if equals and not set(before) & set("/:?#@"):
            name, text = before, after
        parts = urlsplit(text if "://" in text else f"http://{text}")
        try:
            port = parts.port
        except ValueError:
            raise BadServer(f"`{text}` has no valid port") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadServer(f"`{text}` is not an http or https address")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        netloc = host if port is None else f"{host}:{port}"
        path = parts.path.rstrip("/") or "/v1"
        return cls(
            name=name or netloc,
            url=urlunsplit((parts.scheme, netloc, path, "", "")),
            model=unquote(parts.fragment) or model,
            api_key=unquote(parts.username or "") or api_key,
        )


@dataclass(slots=True)
class Hooks:
    """What others need to know of a request under way."""

    connected: Callable[[], Awaitable[object]] | None = None  # awaited before it is sent
    heard_often: int = 0  # calls `on_heard` after so many reads, or at the end if there are fewer
    on_heard: Callable[[], None] | None = None


def body(
    server: Server,
    endpoint: Endpoint,
    messages: list[tuple[str, str]],
    options: Mapping[str, Any],
) -> bytes:
    """A streaming request, in JSON."""
    if endpoint == "chat":
        said: dict[str, Any] = {
            "messages": [{"role": role, "content": text} for role, text in messages]
        }
    else:
        said = {"prompt": "\n".join(text for _, text in messages)}
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps({"model": server.model, **said, **streamed, **options}).encode()


async def ask(
    server: Server, endpoint: Endpoint, body: bytes, patience: float, hooks: Hooks | None = None
) -> Exchange:
    """The exchange; what goes wrong is in it.

    `patience` is in seconds, for connecting and once more for the rest.
    """
    url = urlsplit(server.url)
    return await _exchange(url, _head(server, url, "POST", _PATHS[endpoint], body), patience, hooks)


async def first_model(server: Server, patience: float) -> str:
    """The first that the server lists. Raises BadServer."""
    url = urlsplit(server.url)
    exchange = await _exchange(url, _head(server, url, "GET", "/models"), patience)
    said = b"".join(data for _, data in exchange.reads)
    try:
        return str(json.loads(said)["data"][0]["id"])
    except (ValueError, TypeError, KeyError, IndexError):
        failure = exchange.failure or Failure(f"http {exchange.status}")
        why = f"{failure.kind} {failure.detail}".strip()
        raise BadServer(f"{server.name} lists no model at {server.url}/models ({why})") from None


def _head(server: Server, url: SplitResult, method: str, path: str, body: bytes = b"") -> bytes:
    lines = [
        f"{method} {url.path}{path} HTTP/1.1",
        f"Host: {url.netloc}",
        "Accept: text/event-stream, application/json",
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    if body:
        lines.append("Content-Type: application/json")
    if server.api_key:
        lines.append(f"Authorization: Bearer {server.api_key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Listener(asyncio.Protocol):
    """Notes what arrives, and when, until the response is complete or the connection ends."""

    def __init__(self, hooks: Hooks) -> None:
        self.exchange = Exchange(sent=perf_counter())
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._decoder = Decoder()
        self._hooks = hooks

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        try:
            body = self._decoder.feed(data)
        except BadResponse as error:
            self._end(Failure("malformed", str(error)))
            return
        if body:
            reads = self.exchange.reads
            reads.append((now, body))
            if len(reads) == self._hooks.heard_often and self._hooks.on_heard:
                self._hooks.on_heard()
        if self._decoder.done:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        if error:
            self._end(Failure("reset", str(error)))
        elif self._decoder.ends_here():
            self._end(None)
        else:
            self._end(Failure("cut off", "the connection was closed amid the response"))

    def _end(self, failure: Failure | None) -> None:
        if not self.ended.done():
            self.exchange.failure = failure
            self.stop()
            self.ended.set_result(None)

    def stop(self) -> None:
        self.exchange.ended = perf_counter()
        self.exchange.status = self._decoder.status
        self.exchange.content_type = self._decoder.headers.get("content-type", "")


async def _exchange(
    url: SplitResult, request: bytes, patience: float, hooks: Hooks | None = None
) -> Exchange:
    hooks = hooks or Hooks()
    listener = _Listener(hooks)
    try:
        try:
            async with asyncio.timeout(patience):
                transport = await _connect(url, listener)
        finally:
            if hooks.connected:
                await hooks.connected()
        try:
            async with asyncio.timeout(patience):
                listener.exchange.sent = perf_counter()
                transport.write(request)
                await listener.ended
        finally:
            transport.abort()
    except TimeoutError:
        listener.exchange.failure = Failure("timeout", f"after {patience:g} s")
        listener.stop()
    except OSError as error:
        listener.exchange.failure = Failure("connect", str(error))
        listener.stop()
    if hooks.on_heard and len(listener.exchange.reads) < hooks.heard_often:
        hooks.on_heard()
    return listener.exchange


async def _connect(url: SplitResult, listener: _Listener) -> asyncio.WriteTransport:
    secure = url.scheme == "https"
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: listener,
        url.hostname or "",
        url.port or (443 if secure else 80),
        ssl=ssl.create_default_context() if secure else None,
    )
    return transport
