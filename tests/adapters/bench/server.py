"""A server that answers as well, or as badly, as the model that is asked for says."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

FIRST, STEP = 0.1, 0.02  # seconds until the first token, and between tokens, of `steady`


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class BadServer:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    def bodies(self) -> list[dict[str, Any]]:
        return [one.body for one in self.asked if one.body]


@dataclass
class Answer:
    """Writes one response."""

    writer: asyncio.StreamWriter
    body: dict[str, Any]

    async def head(self, status: str = "200 OK", kind: str = "text/event-stream") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.raw(head.encode())

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, data: object) -> None:
        await self.chunk(event(data))

    async def end(self) -> None:
        await self.chunk(b"data: [DONE]\n\n")
        await self.raw(b"0\r\n\r\n")

    @property
    def count(self) -> int:
        return int(self.body["max_tokens"])

    @property
    def usage(self) -> dict[str, Any]:
        words = sum(len(str(m["content"]).split()) for m in self.body.get("messages", ()))
        return {
            "choices": [],
            "usage": {
                "prompt_tokens": 10 + 2 * words,
                "completion_tokens": self.count,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        }


def event(data: object) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


def piece(text: str, **other: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, **other}, "finish_reason": None}]}


ROLE = piece("", role="assistant")


async def steady(answer: Answer) -> None:
    await answer.head()
    await answer.event(ROLE)
    await asyncio.sleep(FIRST)
    start = asyncio.get_running_loop().time()
    for number in range(answer.count):
        await asyncio.sleep(start + number * STEP - asyncio.get_running_loop().time())
        await answer.event(piece(f"w{number} "))
    await answer.event(answer.usage)
    await answer.end()


async def fast(answer: Answer) -> None:
    await answer.head()
    for number in range(answer.count):
        await answer.event(piece(f"w{number} "))
    await answer.event(answer.usage)
    await answer.end()


async def brief(answer: Answer) -> None:
    """Ends by itself after two tokens."""
    answer.body["max_tokens"] = 2
    await fast(answer)


async def split(answer: Answer) -> None:
    """As `steady` says it, in crumbs that end where no chunk does."""
    data = event(ROLE) + event(piece("Grüße ")) + event(piece("aus Köln")) + event(answer.usage)
    await answer.head()
    whole = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:50], data[50:]))
    for start in range(0, len(whole), 37):
        await answer.raw(whole[start : start + 37])
        await asyncio.sleep(0.001)
    await answer.end()


async def uncounted(answer: Answer) -> None:
    """Two chunks of several words each, no usage, no [DONE], and no chunked encoding."""
    await answer.raw(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    await answer.raw(event(piece("one two ")))
    await answer.raw(event({"choices": [{"delta": {"content": "3"}, "finish_reason": "stop"}]}))


async def busy(answer: Answer) -> None:
    data = json.dumps({"error": {"message": "Come back later.", "code": None}}).encode()
    await answer.raw(
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b" % (len(data), data)
    )
    await asyncio.sleep(5)  # a client must not wait for the connection's end


async def fails_amid(answer: Answer) -> None:
    await answer.head()
    await answer.event(piece("one"))
    await answer.event({"error": {"message": "The engine died."}})
    await answer.end()


async def resets(answer: Answer) -> None:
    await answer.head()
    await answer.event(piece("one"))
    await asyncio.sleep(0.05)
    answer.writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
    answer.writer.transport.abort()


async def leaves(answer: Answer) -> None:
    await answer.head()
    await answer.event(piece("one"))


async def ends_early(answer: Answer) -> None:
    """A proper end of HTTP, but not of the answer."""
    await answer.head()
    await answer.event(piece("one"))
    await answer.raw(b"0\r\n\r\n")


async def hangs(answer: Answer) -> None:
    await answer.head()
    await answer.event(piece("one"))
    await asyncio.sleep(30)


async def babbles(answer: Answer) -> None:
    await answer.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    await asyncio.sleep(5)


async def breaks_json(answer: Answer) -> None:
    await answer.head()
    await answer.chunk(b"data: {nonsense\n\n")
    await answer.end()


async def unstreamed(answer: Answer) -> None:
    await answer.head(kind="application/json")
    await answer.chunk(json.dumps({"choices": [{"message": {"content": "all"}}]}).encode())
    await answer.raw(b"0\r\n\r\n")


ANSWERS: dict[str, Callable[[Answer], Awaitable[None]]] = {
    one.__name__: one
    for one in (
        *(
            steady,
            fast,
            brief,
            split,
            uncounted,
            busy,
            fails_amid,
            resets,
            leaves,
            ends_early,
            hangs,
        ),
        *(babbles, breaks_json, unstreamed),
    )
}


async def _models(answer: Answer) -> None:
    await answer.head(kind="application/json")
    await answer.chunk(json.dumps({"object": "list", "data": [{"id": "fast"}]}).encode())
    await answer.raw(b"0\r\n\r\n")


@contextmanager
def bad_server() -> Iterator[BadServer]:
    """On a loopback socket, in a thread."""
    server, ready = BadServer(), threading.Event()
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            data = await reader.readexactly(int(headers["content-length"]))
            asked = Asked(first.split()[1], headers, json.loads(data or b"{}"))
            server.asked.append(asked)
            act = ANSWERS[asked.body["model"]] if data else _models
            await act(Answer(writer, asked.body))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def run() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=200)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
