"""Rows 7 and 8: who sends or reads too slowly is cut off on time, and others notice nothing."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.container import Container
from tests.reliability.wire import CHAT, Wire, connected, head, open_files, parse, request
from tests.servers import LiveServer, live_server, model_folder, scripted_settings
from tests.waiting import eventually

LONG = " word" * 100_000  # some 20 MB of frames: more than every buffer on the way holds
BODY = {"model": "m", "messages": [{"role": "user", "content": "go"}]}
IDLE = 1_000
SLOW = 1_000


def impatient(root: Path, **settings: Any) -> Container:
    patience = {"header_timeout": 1.0, "body_timeout": 1.0, "write_timeout": 1.0}
    model_folder(root, "m", context=10**6)
    return Container(settings=scripted_settings(root, **patience | settings))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(impatient(tmp_path / "m", keep_alive_timeout=1.0)) as server:
        yield server


async def is_cut(wire: Wire, at_least: float = 0.9) -> bytes:
    """What came before the end, which is not before its time."""
    began = time.monotonic()
    data = await wire.read_all()
    assert time.monotonic() - began >= at_least
    return data


async def is_healthy(server: LiveServer) -> None:
    async with connected(server.port) as wire:
        await wire.send(request(BODY, Connection="close"))
        status, _ = parse(await wire.read_all())
    assert status == 200


def timed_out(answer: bytes) -> None:
    status, body = parse(answer)
    assert status == 408
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert b"\r\nx-request-id: req_" in answer
    assert b"\r\nconnection: close" in answer.lower()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("reads", [False, True], ids=["nothing", "a byte now and then"])
async def test_who_does_not_read_is_cut_off_and_its_request_ends(
    tmp_path: Path, stream: bool, reads: bool
) -> None:
    container = impatient(tmp_path / "m", scripted={"reply": LONG, "burst": 1000})
    scores = {"logprobs": True, "top_logprobs": 5, "max_tokens": 4_000}
    with live_server(container) as server:
        await is_healthy(server)
        await eventually(lambda: server.tasks <= 5)
        files = open_files()
        async with connected(server.port, receive_buffer=2048) as wire:
            await wire.send(request(BODY | ({} if stream else scores) | {"stream": stream}))
            assert await wire.read(1) == b"H"
            began = time.monotonic()
            while open_files() > files + 1 or not server.is_free:  # one end is here
                if reads:
                    await wire.read(1)
                await asyncio.sleep(0.1)
                assert time.monotonic() - began < 30
            assert time.monotonic() - began >= 0.9
        await is_healthy(server)


async def test_what_a_stalled_client_is_owed_has_an_end(tmp_path: Path) -> None:
    """Generation waits for it, rather than fill the memory."""
    script = {"reply": LONG, "burst": 1000}
    container = impatient(tmp_path / "m", write_timeout=60.0, scripted=script)
    with live_server(container) as server:
        async with connected(server.port, receive_buffer=2048) as wire:
            await wire.send(request(BODY | {"stream": True}))
            before, said = -1, 0
            while before != said or not said:
                await asyncio.sleep(0.3)
                before, said = (
                    said,
                    sum(r.stats.generated_tokens for r in server.snapshot.residents),
                )
            assert server.snapshot.leases == 1
            assert said < 50_000
            wire.reset()
        await eventually(lambda: server.is_free)


async def test_heads_that_trickle_are_cut_off(server: LiveServer) -> None:
    async with connected(server.port) as wire:
        trickle = asyncio.create_task(wire.trickle(head("GET", "/livez") * 100, 0.1))
        timed_out(await is_cut(wire))
        trickle.cancel()


async def test_a_head_that_trickles_after_an_answer_is_cut_off_too(server: LiveServer) -> None:
    async with connected(server.port) as wire:
        await wire.send(head("GET", "/livez"))
        assert (await wire.read_answer())[0] == 200
        trickle = asyncio.create_task(wire.trickle(head("GET", "/livez", x="y" * 200), 0.1))
        timed_out(await is_cut(wire))
        trickle.cancel()


@pytest.mark.parametrize("chunked", [True, False])
async def test_bodies_that_trickle_are_cut_off(server: LiveServer, chunked: bool) -> None:
    kind = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": "1000"}
    async with connected(server.port) as wire:
        await wire.send(head("POST", CHAT, Content_Type="application/json", **kind))
        await wire.send(b"3e8\r\n" if chunked else b"")
        trickle = asyncio.create_task(wire.trickle(b" " * 1000, 0.1))
        timed_out(await is_cut(wire))
        trickle.cancel()
    await eventually(lambda: server.tasks <= 5)


async def test_a_body_that_comes_slowly_but_surely_is_taken(server: LiveServer) -> None:
    """Its 0.4 MB take longer than the second that a small one has."""
    message = {"role": "user", "content": "go " + " " * 400_000}
    data = request(BODY | {"messages": [message]})
    async with connected(server.port) as wire:
        for start in range(0, len(data), 40_000):
            await wire.send(data[start : start + 40_000])
            await asyncio.sleep(0.15)
        assert (await wire.read_answer())[0] == 200


async def test_the_rest_of_a_body_is_not_waited_for_after_the_answer(server: LiveServer) -> None:
    async with connected(server.port) as wire:
        await wire.send(head("POST", "/v1/nope", Content_Length="1000"))
        assert (await wire.read_answer())[0] == 404
        assert await is_cut(wire) == b""


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_idle_connections_are_closed(server: LiveServer, said: bytes) -> None:
    async with connected(server.port) as wire:
        await wire.send(said)
        if said:
            assert (await wire.read_answer())[0] == 200
        assert await is_cut(wire) == b""


async def test_crowds_of_idle_and_slow_connections_are_cut_while_others_are_served(
    tmp_path: Path,
) -> None:
    container = impatient(tmp_path / "m", header_timeout=2.0, body_timeout=2.0)
    bodies = head("POST", CHAT, Content_Type="application/json", Content_Length="1000") + b" "

    async def hold(said: bytes) -> None:
        async with connected(server.port) as wire:
            await wire.send(said)
            await wire.read_all()

    with live_server(container) as server:
        await is_healthy(server)
        sayings = [b"", b"GET /v1/mod", bodies]
        crowd = [asyncio.create_task(hold(sayings[n % 3])) for n in range(IDLE)]
        healthy = 0
        while not all(task.done() for task in crowd):
            await is_healthy(server)
            healthy += 1
        await asyncio.gather(*crowd)
        assert healthy >= 3
        await eventually(lambda: server.tasks <= 5 and server.is_free)
