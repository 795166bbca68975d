"""Clients that begin TLS and don't go on: cut off in time, counted, and noticed by nobody."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from adapters.container import Container
from tests.e2e.conftest import portico_serve
from tests.reliability.wire import Wire, connected, open_files
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import eventually

SILENT = 200
HELLO = bytes.fromhex("160301020001000100")  # the beginning of a ClientHello


@pytest.fixture
def trusting(tmp_path: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "server.pem"
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def container(root: Path, **settings: object) -> Container:
    certificate = root / "server.pem"
    patience = {"header_timeout": 3.0} | settings
    return Container(
        settings=scripted_settings(root / "models", "m", ssl_certfile=certificate, **patience)
    )


@pytest.fixture
def server(tmp_path: Path, trusting: ssl.SSLContext) -> Iterator[LiveServer]:
    with live_server(container(tmp_path)) as server:
        yield server


@asynccontextmanager
async def silent(server: LiveServer, count: int, words: bytes) -> AsyncIterator[list[Wire]]:
    async with contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(server.port)) for _ in range(count)]
        for wire in wires:
            await wire.send(words)
        yield wires


async def ends(wire: Wire) -> None:
    with contextlib.suppress(ConnectionResetError):
        await wire.read_all()


@pytest.mark.parametrize("words", [b"", HELLO], ids=["nothing", "half a hello"])
async def test_silent_clients_are_cut_off_in_time_and_others_are_served(
    server: LiveServer, trusting: ssl.SSLContext, words: bytes
) -> None:
    async with httpx.AsyncClient(base_url=server.url, verify=trusting, timeout=30) as client:
        assert (await client.get("/v1/models")).status_code == 200
        files, tasks = open_files(), server.tasks
        began = time.monotonic()
        async with silent(server, SILENT, words) as wires:
            assert (await client.get("/v1/models")).status_code == 200
            async with asyncio.timeout(30):
                await asyncio.gather(*(ends(wire) for wire in wires))
            assert time.monotonic() - began >= 2.5  # not before they had their time
            assert (await client.get("/v1/models")).status_code == 200
        await eventually(lambda: open_files() <= files and server.tasks <= tasks)


async def test_those_that_have_not_agreed_yet_count_as_connections(
    tmp_path: Path, trusting: ssl.SSLContext
) -> None:
    crowded = container(tmp_path, max_connections=20, header_timeout=60.0)
    with live_server(crowded) as server:

        async def status() -> int:
            """On a connection of its own."""
            async with httpx.AsyncClient(verify=trusting, timeout=30) as client:
                return (await client.get(f"{server.url}/v1/models")).status_code

        assert await status() == 200
        async with silent(server, 30, HELLO):
            assert await status() == 503
        async with asyncio.timeout(30):
            while await status() != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_what_comes_with_the_last_word_of_the_handshake_is_not_lost(
    server: LiveServer, trusting: ssl.SSLContext
) -> None:
    """A client of TLS 1.3 sends its request behind its half of the agreement."""
    for _ in range(50):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        async with connected(server.port) as wire:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await wire.send(outgoing.read())
                    incoming.write(await wire.read())
            tls.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            await wire.send(outgoing.read())  # both in one piece
            answer = b""
            while b"}" not in answer:
                incoming.write(await wire.read())
                with contextlib.suppress(ssl.SSLWantReadError):
                    while more := tls.read():  # a record at a time
                        answer += more
            assert answer.startswith(b"HTTP/1.1 200 ")


async def test_large_bodies_and_long_answers_come_through(
    server: LiveServer, trusting: ssl.SSLContext
) -> None:
    words = "word " * 20_000
    body = {"model": "m", "prompt": words, "max_tokens": 400, "stream": True}
    async with httpx.AsyncClient(base_url=server.url, verify=trusting, timeout=30) as client:
        answer = await client.post("/v1/completions", json=body)
        assert answer.status_code == 400  # the context is 512
        body["prompt"] = "word " * 500
        for _ in range(3):  # on one connection
            answer = await client.post("/v1/completions", json=body | {"user": words})
            assert answer.status_code == 200
            assert answer.text.rstrip().endswith("data: [DONE]")


async def test_a_drain_does_not_wait_for_who_is_silent(
    tmp_path: Path, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_SSL_CERTFILE", str(tmp_path / "server.pem"))
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        port = int(program.url.rpartition(":")[2])
        async with connected(port) as wire:
            await wire.send(HELLO)
            program.process.terminate()
            assert await asyncio.to_thread(program.process.wait, 25) == 0
    assert not [line for line in program.output if "Traceback" in line]
