"""Engines in processes of their own, over real sockets: one is killed, another hangs."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from adapters.container import Container
from adapters.isolated.engine import IsolatedEngine
from domain.models import ModelId
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import eventually

WORDS = " ".join(f"word{n}" for n in range(200))
PATIENCE = 30.0


def container(root: Path, **settings: Any) -> Container:
    script = {"reply": WORDS, "token_delay": 0.01} | settings.pop("script", {})
    return Container(
        settings=scripted_settings(
            root, "doomed", "other", isolation="process", scripted=script, **settings
        )
    )


def pid_of(server: LiveServer, name: str) -> int:
    slot = server.container.models()._residents.find(ModelId.parse(name))
    assert slot
    assert isinstance(slot.engine, IsolatedEngine)
    return slot.engine.pid


class Reader:
    """A stream, read to its end."""

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        self._client = client
        self._model = model
        self.lines: list[str] = []
        self.ended_at = 0.0
        self.flowing = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        messages = [{"role": "user", "content": "go"}]
        body = {"model": self._model, "messages": messages, "stream": True}
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line:
                    self.lines.append(line)
                if len(self.lines) > 5:
                    self.flowing.set()
        self.ended_at = time.monotonic()

    @property
    def deltas(self) -> list[str]:
        """What was said, modulo id and time."""
        return [line.partition('"choices"')[2] for line in self.lines]


async def ask(client: httpx.AsyncClient, model: str, **options: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "go"}]} | options
    return await client.post("/v1/chat/completions", json=body)


async def test_a_killed_engine_process_fails_its_streams_and_nobody_else_s(tmp_path: Path) -> None:
    with live_server(container(tmp_path / "m")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            began = time.monotonic()
            assert (await ask(client, "doomed", max_tokens=1)).status_code == 200
            load_time = time.monotonic() - began
            calm = Reader(client, "other")
            await calm.task

            others = [Reader(client, "other") for _ in range(4)]
            doomed = [Reader(client, "doomed") for _ in range(8)]
            for reader in (*others, *doomed):
                await asyncio.wait_for(reader.flowing.wait(), PATIENCE)
            survivor = pid_of(server, "other")
            os.kill(pid_of(server, "doomed"), signal.SIGKILL)
            killed = time.monotonic()
            await asyncio.gather(*(reader.task for reader in doomed))
            assert all('"code":"engine_failed"' in reader.lines[-1] for reader in doomed)
            assert all("SIGKILL" in reader.lines[-1] for reader in doomed)
            assert max(reader.ended_at for reader in doomed) - killed < 1.0

            again = time.monotonic()
            assert (await ask(client, "doomed", max_tokens=1)).status_code == 200
            assert time.monotonic() - again < load_time + 2.0
            assert (await client.get("/livez")).status_code == 200

            await asyncio.gather(*(reader.task for reader in others))
            assert [reader.deltas for reader in others] == [calm.deltas] * 4
            assert pid_of(server, "other") == survivor
        assert server.snapshot.leases == 0


async def test_a_process_that_dies_while_idle_costs_no_request(tmp_path: Path) -> None:
    with live_server(container(tmp_path / "m")) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            for _ in range(3):
                assert (await ask(client, "doomed", max_tokens=1)).status_code == 200
                os.kill(pid_of(server, "doomed"), signal.SIGKILL)
                async with asyncio.timeout(PATIENCE):
                    while "loadable" not in (await client.get("/v1/models/doomed")).text:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)


async def test_a_hung_engine_process_is_killed_and_gives_its_memory_back(tmp_path: Path) -> None:
    script = {"hang_after": 3, "reply": WORDS}
    with live_server(container(tmp_path / "m", script=script, hang_timeout=1.0)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            hanging = asyncio.create_task(ask(client, "doomed"))
            red = False
            while not hanging.done():
                red = red or (await client.get("/livez")).status_code == 503
                await asyncio.sleep(0.02)
            answer = await hanging
            assert answer.status_code == 500
            assert "hung" in answer.json()["error"]["message"]
            await eventually(
                lambda: not (server.snapshot.hung or server.snapshot.memory_used), PATIENCE
            )
            assert (await client.get("/livez")).status_code == 200
            assert (await ask(client, "doomed", max_tokens=1)).status_code == 200


async def test_a_load_that_hangs_is_killed_and_others_go_on(tmp_path: Path) -> None:
    script = {"load_delay": 1000.0}
    with live_server(container(tmp_path / "m", script=script, load_timeout=2.0)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            answers = await asyncio.gather(*(ask(client, "doomed") for _ in range(4)))
            for answer in answers:
                assert answer.status_code == 500
                assert answer.json()["error"]["code"] == "engine_failed"
                assert "load hung" in answer.text
            await eventually(lambda: not (children() or server.snapshot.hung), PATIENCE)
            assert (await client.get("/livez")).status_code == 200
            assert server.snapshot.memory_used == 0


def children() -> list[psutil.Process]:
    """The engine processes that live."""
    return [child for child in psutil.Process().children() if is_engine(child)]


def is_engine(child: psutil.Process) -> bool:
    try:
        zombie = child.status() == psutil.STATUS_ZOMBIE
        return not zombie and "adapters.isolated.child" in child.cmdline()
    except psutil.NoSuchProcess:  # it has ended in this moment
        return False
