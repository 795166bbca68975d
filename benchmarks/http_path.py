"""What a streamed token costs between the engine and the socket.

    python -m benchmarks.http_path

Portico on the scripted engine, which takes next to no time for a token, against a bare ASGI
application that sends the very same frames from a list: each in a process of its own, on the
uvicorn that Portico configures. Both sides pay for uvicorn; what is left is Portico.

Twice: as both sides are, and "one by one". By default the scripted engine says several tokens
before it is others' turn, and the bare application never waits for a turn at all; both have frames
that leave together. One by one, every token waits for its turn in the event loop and is a write of
its own, as the tokens of a batch step are, on both sides.

The sides take turns, and the best round of each counts: whatever else runs on the machine only
makes a round slower. Where the system tells how much CPU time a process used (Linux), frames per
CPU second are printed as well; these hardly depend on what else runs.
"""

import argparse
import asyncio
import http.client
import json
import pickle
import selectors
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Receive, Scope, Send

from adapters.http.connection import ConnectionLimits
from adapters.http.request_log import unseen
from adapters.http.server import serve, server_config
from adapters.telemetry.logs import logging_config
from benchmarks.processes import Server, free_port, running

_PATH = "/v1/chat/completions"
_READ = 2**18  # bytes
# A client that waits in the kernel is woken by every frame, and what that costs the sender depends
# on what else runs; one that looks every now and then costs both sides the same.
_LOOK_EVERY = 0.002  # seconds


class BareApp:
    """Answers everything with the same frames; `one_by_one` each waits for its turn."""

    def __init__(self, frames: Sequence[bytes], one_by_one: bool) -> None:
        self._frames = frames
        self._one_by_one = one_by_one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for data in self._frames:
            if self._one_by_one:
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def serve_bare(frames: Path, port: int, one_by_one: bool) -> None:
    async def nothing_to_drain() -> None:
        pass

    answer = pickle.loads(frames.read_bytes())  # noqa: S301 - written by this program
    app = BareApp(answer, one_by_one)
    log_config = logging_config("human", "warning")
    limits = ConnectionLimits()
    config = server_config(app, "127.0.0.1", port, limits, unseen, log_config=log_config)
    serve(config, nothing_to_drain, lambda: None, grace=0)


class Stream:
    """One answer, of which only the frames are counted."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(request)
        self.frames = 0
        self._half = False  # the second line break of a frame may come with the next data

    def read(self) -> bool:
        """What has come; False at the end."""
        data = self.socket.recv(_READ)
        self.frames += data.count(b"\n\n") + (self._half and data.startswith(b"\n"))
        self._half = data.endswith(b"\n") and not data.endswith(b"\n\n")
        return bool(data)


@dataclass(frozen=True, slots=True)
class Round:
    """Frames per second, and per second of CPU time."""

    per_second: float
    per_cpu_second: float

    def or_better(self, other: "Round") -> "Round":
        return Round(
            max(self.per_second, other.per_second),
            max(self.per_cpu_second, other.per_cpu_second),
        )


def measure(server: Server, body: bytes, streams: int) -> Round:
    """All streams at once, from the first request to the end of the last answer."""
    request = (
        f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
    cpu_before, began = server.cpu_seconds, time.perf_counter()
    frames = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            stream = Stream(server.port, request)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map():
            time.sleep(_LOOK_EVERY)
            for key, _ in selector.select(0):
                if not key.data.read():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
                    frames += key.data.frames
    seconds, cpu_after = time.perf_counter() - began, server.cpu_seconds
    cpu = cpu_after - cpu_before if cpu_after and cpu_before else 0
    return Round(frames / seconds, frames / cpu if cpu else 0.0)


def one_answer(server: Server, body: bytes) -> list[bytes]:
    """The frames of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
    *events, rest = connection.getresponse().read().split(b"\n\n")
    if rest or events[-1:] != [b"data: [DONE]"]:
        raise SystemExit(f"this is no answer: {rest!r}")
    return [event + b"\n\n" for event in events]


def compare(streams: int, tokens: int, rounds: int) -> None:
    body = _body(tokens)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        portico = stack.enter_context(_portico(folder, streams, tokens))
        answer = one_answer(portico, body)
        sides = {
            "bare ASGI": stack.enter_context(_bare(folder, answer)),
            "Portico": portico,
            "bare ASGI, one by one": stack.enter_context(_bare(folder, answer, one_by_one=True)),
            "Portico, one by one": stack.enter_context(_portico(folder, streams, tokens, burst=1)),
        }
        size = sum(map(len, answer)) / len(answer)
        print(f"{streams} streams of {len(answer)} frames of {size:.0f} bytes, {rounds} rounds")
        best = dict.fromkeys(sides, Round(0, 0))
        for _ in range(rounds):
            for name, server in sides.items():
                best[name] = best[name].or_better(measure(server, body, streams))
    print(f"{'':21} {'frames/s':>9} {'per CPU s':>9}")
    for name, side in best.items():
        print(f"{name:21} {side.per_second:9,.0f} {side.per_cpu_second:9,.0f}")
    for mode in ("", ", one by one"):
        bare, mine = best[f"bare ASGI{mode}"], best[f"Portico{mode}"]
        ratio = mine.per_second / bare.per_second
        cpu_ratio = mine.per_cpu_second / (bare.per_cpu_second or 1)
        print(f"{'ratio' + mode:21} {ratio:9.2f} {cpu_ratio:9.2f}")


def soak(streams: int, tokens: int, seconds: float) -> None:
    """Prints the resident memory while streams come and go."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _portico(folder, streams, tokens) as portico,
    ):
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            done = measure(portico, _body(tokens), streams)
            at = time.monotonic() - began
            memory = portico.resident_mb
            print(f"{at:6.0f} s {memory or 0:7.1f} MB {done.per_second:9,.0f} frames/s", flush=True)


def _body(tokens: int) -> bytes:
    message = {"role": "user", "content": "go"}
    return json.dumps({"messages": [message], "stream": True, "max_tokens": tokens}).encode()


def _portico(
    folder: str, streams: int, tokens: int, **script: int
) -> AbstractContextManager[Server]:
    port = free_port()
    script = {"slots": streams} | script
    return running(
        *("-m", "adapters.cli.main", "serve", "--backend", "scripted"),
        *("--port", str(port), "--log-level", "warning"),
        port=port,
        environment={
            "HF_HOME": folder,
            "PORTICO_MAX_BATCH_SIZE": str(streams),
            "PORTICO_SCRIPTED__REPLY": " word" * tokens,
        }
        | {f"PORTICO_SCRIPTED__{name.upper()}": str(value) for name, value in script.items()},
    )


def _bare(
    folder: str, answer: list[bytes], *, one_by_one: bool = False
) -> AbstractContextManager[Server]:
    port = free_port()
    frames = Path(folder) / "frames"
    frames.write_bytes(pickle.dumps(answer))
    mode = ("--one-by-one",) if one_by_one else ()
    command = ("-m", "benchmarks.http_path", "--bare", str(frames), str(port), *mode)
    return running(*command, port=port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=1000, help="of each stream")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--soak", type=float, help="seconds to watch the memory for, instead")
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--one-by-one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        serve_bare(Path(given.bare[0]), int(given.bare[1]), given.one_by_one)
    elif given.soak:
        soak(given.streams, given.tokens, given.soak)
    else:
        compare(given.streams, given.tokens, given.rounds)


if __name__ == "__main__":
    main()
