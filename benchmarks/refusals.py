"""How long a server takes to refuse what is too much.

    python -m benchmarks.refusals

Portico on the scripted engine has 8 places and a queue of 16, and is asked 124 things at once by a
process of its own, burst after burst, streams and not in turn: 100 are refused. A refusal's time is
from before its connection is made to the last byte of its body.
"""

import argparse
import asyncio
import json
import re
import tempfile
import time

from benchmarks.processes import free_port, running

_PATH = "/v1/chat/completions"
_SLOTS, _WAITING, _TOO_MANY = 8, 16, 100
_REFUSED = b"HTTP/1.1 429 "


def _request(stream: bool) -> bytes:
    message = {"role": "user", "content": "go"}
    body = json.dumps({"messages": [message], "stream": stream}).encode()
    head = f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def _ask(port: int, request: bytes) -> tuple[bool, float]:
    """Whether it was refused, and the seconds until its answer was there."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")  # a reset raises here
    length = re.search(rb"content-length: (\d+)", head)
    await (reader.readexactly(int(length[1])) if length else reader.read(-1))
    seconds = time.perf_counter() - began
    writer.close()
    return head.startswith(_REFUSED), seconds


async def burst(port: int, *, stream: bool) -> list[float]:
    """Milliseconds of each refusal, sorted."""
    many = _SLOTS + _WAITING + _TOO_MANY
    answers = await asyncio.gather(*(_ask(port, _request(stream)) for _ in range(many)))
    return sorted(seconds * 1000 for refused, seconds in answers if refused)


async def measure(port: int, bursts: int) -> None:
    await _ask(port, _request(stream=False))  # it loads
    slowest: dict[bool, list[float]] = {False: [], True: []}
    for n in range(bursts):
        stream = n % 2 == 1
        times = await burst(port, stream=stream)
        slowest[stream].append(times[-1])
        middle = times[len(times) // 2]
        kind = "streams" if stream else "answers"
        print(f"{kind}: {len(times)} refused; ms: median {middle:.0f}, slowest {times[-1]:.0f}")
        await asyncio.sleep(0.7)
    for stream, found in slowest.items():
        if found:
            kind = "streams" if stream else "answers"
            print(f"slowest of {kind}: {min(found):.0f} to {max(found):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=20)
    given = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "HF_HOME": folder,
            "PORTICO_MAX_BATCH_SIZE": str(_SLOTS),
            "PORTICO_MAX_WAITING": str(_WAITING),
            "PORTICO_SCRIPTED__REPLY": "done",
            "PORTICO_SCRIPTED__SLOTS": str(_SLOTS),
            "PORTICO_SCRIPTED__PROMPT_DELAY": "0.3",
        }
        command = ("-m", "adapters.cli.main", "serve", "--backend", "scripted")
        flags = ("--port", str(port))
        with running(*command, *flags, port=port, environment=environment, quiet=True):
            asyncio.run(measure(port, given.bursts))


if __name__ == "__main__":
    main()
