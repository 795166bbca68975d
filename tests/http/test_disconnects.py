"""Clients that leave: nothing goes on generating for nobody."""

import asyncio
import random
import socket
import time
from pathlib import Path

import httpx
import pytest

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from tests.servers import live_server, scripted_settings
from tests.waiting import until

WORDS = " ".join(f"word{n}" for n in range(400))
BODY = {"model": "test/model", "messages": [{"role": "user", "content": "go"}]}


def slow_server(root: Path, **script: float) -> Container:
    settings = scripted_settings(root, "test/model", first_event_patience=0.2)
    container = Container(settings=settings)
    timing = {"token_delay": 0.01} | script
    container.loader.override(ScriptedLoader(Script(reply=WORDS, **timing)))  # type: ignore[arg-type]
    return container


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place_within_a_second(tmp_path: Path, stream: bool) -> None:
    with live_server(slow_server(tmp_path / "m")) as server:
        body = httpx.Request("POST", server.url, json=BODY | {"stream": stream}).content
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port or 0)) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.host}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            assert until(lambda: server.snapshot.leases == 1, 5)
            time.sleep(0.05)
            assert server.snapshot.leases == 1
        assert until(lambda: server.is_free, 1.0)


def test_a_client_that_leaves_while_its_model_loads_is_not_waited_for(tmp_path: Path) -> None:
    with live_server(slow_server(tmp_path / "m", load_delay=0.6)) as server:
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=BODY | {"stream": True}
        ) as answer:
            assert answer.status_code == 200
            assert next(answer.iter_lines()) == ": loading test/model"
        assert until(lambda: server.is_free, 1.0)


async def test_fifty_streams_with_random_disconnects_leave_no_lease(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - reproducible chance
    complete = 0

    async def one(client: httpx.AsyncClient, leaves_after: int | None) -> bool:
        body = BODY | {"stream": True, "max_tokens": 40}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            seen = 0
            async for line in answer.aiter_lines():
                seen += bool(line)
                if seen == leaves_after:
                    return False
            return line == "" and seen > 40

    with live_server(slow_server(tmp_path / "m", token_delay=0.002)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            leaving = [chance.randint(1, 30) if n % 2 else None for n in range(50)]
            complete = sum(await asyncio.gather(*(one(client, after) for after in leaving)))
        assert complete == 25
        assert await asyncio.to_thread(until, lambda: server.is_free, 1.0)


def test_a_stream_without_tokens_says_that_it_is_waiting_and_then_answers(tmp_path: Path) -> None:
    container = slow_server(tmp_path / "m", prompt_delay=0.7, token_delay=0.0)
    with live_server(container) as server:
        body = BODY | {"stream": True, "max_tokens": 2}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert ": waiting\n\n" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    lines = [line for line in answer.text.splitlines() if line]
    assert all(line.startswith((": ", "data: {", "data: [")) for line in lines)


def test_a_failure_behind_waiting_comments_becomes_an_error_event(tmp_path: Path) -> None:
    container = slow_server(tmp_path / "m", load_delay=0.5, fail_load=True)
    with live_server(container) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=BODY | {"stream": True})
        assert answer.status_code == 200
        assert '"error":{"message":"The model `test/model` failed to load' in answer.text
        assert "[DONE]" not in answer.text
        at_once = httpx.post(f"{server.url}/v1/chat/completions", json=BODY)
        assert at_once.status_code == 500
