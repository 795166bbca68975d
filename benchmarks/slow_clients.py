"""What clients that are slow on purpose do to those that are not.

    python -m benchmarks.slow_clients

Streams are read from Portico on the scripted engine, which says a token every 20 ms, and the gaps
between their tokens are taken: alone, and beside readers of a byte a second, heads and bodies that
trickle, and idle connections. Server, crowd and readers are a process each; the rounds take turns,
and the best of each counts.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from benchmarks.processes import Server, free_port, running

_PATH = "/v1/chat/completions"
_TOKEN_DELAY = 0.02  # seconds
_TOKENS = 100
_Client = Callable[[int], Coroutine[Any, Any, None]]


def _request(max_tokens: int) -> bytes:
    message = {"role": "user", "content": "go"}
    body = json.dumps({"messages": [message], "stream": True, "max_tokens": max_tokens}).encode()
    head = f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def gaps(port: int) -> list[float]:
    """Seconds between the tokens of one stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request(_TOKENS))
    times = []
    while line := await reader.readline():
        if b'"content":" word' in line:
            times.append(time.perf_counter())
    writer.close()
    return [after - before for before, after in itertools.pairwise(times)]


async def read_slowly(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(_request(10_000))
    data = b"H"
    while data:
        await asyncio.sleep(1)
        data = await reader.read(1)


async def read_on(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request(10_000))
    while await reader.read(2**16):
        pass


async def trickle_head(port: int) -> None:
    await _trickle(port, b"", b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000)


async def trickle_body(port: int) -> None:
    head = f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    await _trickle(port, head.encode(), b" " * 1000)


async def _trickle(port: int, at_once: bytes, slowly: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(at_once)
    for byte in slowly:
        writer.write(bytes([byte]))
        await asyncio.sleep(1)


async def idle(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.sleep(3600)


async def again_and_again(client: _Client, port: int, delay: float) -> None:
    """Whoever is cut off comes back. `delay`: they don't march in step."""
    await asyncio.sleep(delay)
    while True:
        with suppress(OSError):
            await client(port)
        await asyncio.sleep(1)


_CROWDS: dict[str, list[_Client]] = {
    "alone": [],
    "50 more that read": [read_on] * 50,  # what the slow ones are to be compared with
    "50 slow readers": [read_slowly] * 50,
    "500 slow heads, 500 slow bodies": [trickle_head, trickle_body] * 500,
    "1,000 idle connections": [idle] * 1000,
}


async def crowd(name: str, port: int) -> None:
    clients = _CROWDS[name]
    delays = (n / len(clients) for n in range(len(clients)))
    await asyncio.gather(
        *(
            again_and_again(client, port, delay)
            for client, delay in zip(clients, delays, strict=True)
        )
    )


async def measure(port: int, streams: int, name: str) -> list[float]:
    """The crowd is in a process of its own: what it costs itself is not the server's."""
    command = (sys.executable, "-m", "benchmarks.slow_clients", "--crowd", name, str(port))
    pests = await asyncio.create_subprocess_exec(*command) if _CROWDS[name] else None
    await asyncio.sleep(3 if pests else 0)
    found = await asyncio.gather(*(gaps(port) for _ in range(streams)))
    if pests:
        pests.kill()
        await pests.wait()
    await asyncio.sleep(1)
    return sorted(gap for stream in found for gap in stream)


async def compare(server: Server, streams: int, rounds: int) -> None:
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name in _CROWDS:
            found = await measure(server.port, streams, name)
            p50, p99 = (found[int(len(found) * share)] * 1000 for share in (0.5, 0.99))
            before = best.get(name, (p50, p99))
            best[name] = (min(before[0], p50), min(before[1], p99))
    print(f"{streams} streams, a token every {_TOKEN_DELAY * 1000:.0f} ms; ms between two tokens")
    for name, (p50, p99) in best.items():
        print(f"{name:32} p50 {p50:6.2f}  p99 {p99:6.2f}  {p99 / best['alone'][1] - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--crowd", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.crowd:
        asyncio.run(crowd(given.crowd[0], int(given.crowd[1])))
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "HF_HOME": folder,
            "PORTICO_MAX_BATCH_SIZE": "128",
            "PORTICO_SCRIPTED__SLOTS": "128",
            "PORTICO_SCRIPTED__REPLY": " word" * 10_000,
            "PORTICO_SCRIPTED__TOKEN_DELAY": str(_TOKEN_DELAY),
        }
        flags = ("--backend", "scripted", "--port", str(port), "--log-level", "warning")
        command = ("-m", "adapters.cli.main", "serve", *flags)
        with running(*command, port=port, environment=environment) as server:
            asyncio.run(compare(server, given.streams, given.rounds))


if __name__ == "__main__":
    main()
