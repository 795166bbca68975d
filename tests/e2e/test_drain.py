"""SIGTERM: nothing new, what is open finishes, nothing is left behind."""

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Program, portico_serve
from tests.waiting import until

STREAMS = 50
WORDS = " ".join(f"word{n}" for n in range(100))
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}], "stream": True}


@pytest.fixture(autouse=True)
def _script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of five seconds, more of them at once than there are places in the batch."""
    monkeypatch.setenv("PORTICO_BACKEND", "scripted")
    monkeypatch.setenv("PORTICO_SCRIPTED__REPLY", WORDS)
    monkeypatch.setenv("PORTICO_SCRIPTED__TOKEN_DELAY", "0.05")
    monkeypatch.setenv("PORTICO_SCRIPTED__SLOTS", "40")


class Streams:
    """Fifty answers, side by side. `began` once each has said a word or has its place in a line."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.lines: list[list[str]] = [[] for _ in range(STREAMS)]

    async def read(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await asyncio.gather(*(self._one(client, lines) for lines in self.lines))

    async def _one(self, client: httpx.AsyncClient, lines: list[str]) -> None:
        url = f"{self._url}/v1/chat/completions"
        async with client.stream("POST", url, json=BODY) as answer:
            async for line in answer.aiter_lines():
                lines.append(line)

    async def began(self) -> None:
        """All of them hold leases, and those that have a place have said a word."""
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while True:
                status = (await client.get(f"{self._url}/api/v1/status")).json()
                leases = sum(model["leases"] for model in status["residents"])
                if leases == STREAMS and sum(map(bool, self.lines)) >= 40:
                    return
                await asyncio.sleep(0.05)


def text_of(lines: list[str]) -> str:
    return "".join(re.findall(r'"content":"([^"]*)"', "".join(lines)))


async def ended(program: Program, seconds: float) -> int:
    return await asyncio.to_thread(program.process.wait, seconds)


async def closing(client: httpx.AsyncClient) -> httpx.Response:
    """The first answer that says that the server is not ready."""
    async with asyncio.timeout(10):
        while True:
            if (ready := await client.get("/readyz")).status_code != 200:
                return ready
            await asyncio.sleep(0.02)


async def test_fifty_streams_finish_while_what_is_new_is_refused(tmp_path: Path) -> None:
    with portico_serve(tmp_path) as program:
        streams = Streams(program.url)
        reading = asyncio.create_task(streams.read())
        await streams.began()
        program.process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=program.url) as client:
            ready = await closing(client)
            assert (ready.status_code, ready.json()) == (503, {"status": "closing"})
            assert (await client.get("/livez")).status_code == 200
            refused = await client.post("/v1/chat/completions", json=BODY)
        assert not reading.done()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert refused.json()["error"]["type"] == "server_error"
        assert int(refused.headers["retry-after"]) > 0
        await reading
        assert await ended(program, 30) == 0
    assert [text_of(lines) for lines in streams.lines] == [WORDS] * STREAMS
    assert all("data: [DONE]" in lines for lines in streams.lines)


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_without_grace_fifty_streams_are_told_and_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    monkeypatch.setenv("PORTICO_SHUTDOWN_GRACE", "0")
    monkeypatch.setenv("PORTICO_ISOLATION", isolation)
    monkeypatch.setenv("PORTICO_SCRIPTED__TOKEN_DELAY", "1")  # answers of 100 seconds
    with portico_serve(tmp_path) as program:
        streams = Streams(program.url)
        reading = asyncio.create_task(streams.read())
        await streams.began()
        asked = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        assert await ended(program, 20) == 0
        assert time.monotonic() - asked < 4
        await reading
    for lines in streams.lines:
        assert "shutting_down" in "".join(lines)
    assert len(engines(program)) == (isolation == "process")
    assert all(map(is_gone, engines(program)))


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_load_does_not_hold_up_an_exit_without_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    monkeypatch.setenv("PORTICO_SHUTDOWN_GRACE", "0")
    monkeypatch.setenv("PORTICO_ISOLATION", isolation)
    monkeypatch.setenv("PORTICO_SCRIPTED__LOAD_DELAY", "100")
    monkeypatch.setenv("PORTICO_FIRST_EVENT_PATIENCE", "0.1")
    with portico_serve(tmp_path) as program:
        url = f"{program.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=BODY, timeout=30) as answer:
            lines = answer.iter_lines()
            said = [next(lines)]
            asked = time.monotonic()
            program.process.send_signal(signal.SIGTERM)
            said += lines
        assert program.process.wait(20) == 0
        assert time.monotonic() - asked < 4
    assert said[0].startswith(": ") and "shutting_down" in "".join(said)
    assert not [line for line in program.output if "Traceback" in line]


def test_a_second_signal_ends_it_at_once_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_ISOLATION", "process")
    monkeypatch.setenv("PORTICO_SCRIPTED__TOKEN_DELAY", "1")
    with portico_serve(tmp_path) as program:
        url = f"{program.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=BODY) as answer:
            lines = answer.iter_lines()  # kept: without it the answer would be closed
            assert next(lines)
            assert until(lambda: bool(engines(program)), 10)  # the log is read by a thread
            (engine,) = engines(program)
            program.process.send_signal(signal.SIGTERM)
            assert until(lambda: httpx.get(f"{program.url}/readyz").status_code == 503, 10)
            assert program.process.poll() is None
            os.kill(engine, signal.SIGSTOP)  # so that it can't notice by itself
            program.process.send_signal(signal.SIGTERM)
            assert program.process.wait(10) == 128 + signal.SIGTERM
        assert until(lambda: is_gone(engine), 10)


def engines(program: Program) -> list[int]:
    log = " ".join(program.output)
    return [int(pid) for pid in re.findall(r"runs in process (\d+)", log)]


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{process}/stat")  # where nobody reaps orphans, they stay as zombies
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z"
