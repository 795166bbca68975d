"""Engines that break and engines that hang, as clients and probes see them."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import until

WORDS = " ".join(f"word{n}" for n in range(100))
HANG = 0.5
PATIENCE = 20.0


def body(text: str = "go", model: str = "test/model") -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "stream": True}


def faulty(root: Path, **script: Any) -> Container:
    settings = scripted_settings(root, "test/model", hang_timeout=HANG)
    container = Container(settings=settings)
    script = {"reply": WORDS, "token_delay": 0.01} | script
    container.loader.override(ScriptedLoader(Script(**script)))
    return container


def probe(server: LiveServer, path: str) -> int:
    return httpx.get(f"{server.url}/{path}").status_code


async def stream(url: str, count: int) -> list[tuple[str, float]]:
    """The last line of each stream, and when it came."""

    async def one(client: httpx.AsyncClient) -> tuple[str, float]:
        last = ""
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body()) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                last = line or last
        return last, time.monotonic()

    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        return await asyncio.gather(*(one(client) for _ in range(count)))


async def test_a_broken_step_gives_each_stream_one_typed_error_and_a_fresh_engine_follows(
    tmp_path: Path,
) -> None:
    container = faulty(tmp_path / "m", fail_after=10, replies={"again": "fine"})
    with live_server(container) as server:
        ends = await stream(server.url, 8)
        assert all('"code":"engine_failed"' in line for line, _ in ends)
        moments = [moment for _, moment in ends]
        assert max(moments) - min(moments) < 1.0
        assert probe(server, "livez") == 200
        # A reply shorter than `fail_after` does not break.
        again = await asyncio.to_thread(
            httpx.post, f"{server.url}/v1/chat/completions", json=body("again") | {"stream": False}
        )
        assert again.json()["choices"][0]["message"]["content"] == "fine"
        assert server.snapshot.failing == ()


def test_repeated_deaths_are_refused_with_the_time_to_come_back(tmp_path: Path) -> None:
    with live_server(faulty(tmp_path / "m", fail_after=0)) as server:
        url = f"{server.url}/v1/chat/completions"
        asked = body() | {"stream": False}
        broken = [httpx.post(url, json=asked).status_code for _ in range(2)]
        assert broken == [500, 500]
        refused = httpx.post(url, json=asked)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "engine_resting"
        status = httpx.get(f"{server.url}/api/v1/status").json()
        (failing,) = status["failing"]
        assert (failing["model"], failing["deaths"]) == ("test/model", 2)
        assert 0 < failing["retry_after"] <= 1


async def test_a_hang_turns_liveness_red_and_fails_its_requests(tmp_path: Path) -> None:
    with live_server(faulty(tmp_path / "m", hang_after=3, replies={"again": "fine"})) as server:
        assert await asyncio.to_thread(probe, server, "livez") == 200
        ends = await asyncio.wait_for(stream(server.url, 4), PATIENCE)
        assert all('"code":"engine_failed"' in line and "hung" in line for line, _ in ends)
        assert await asyncio.to_thread(probe, server, "livez") == 503
        assert await asyncio.to_thread(probe, server, "readyz") == 200
        (hung,) = server.snapshot.hung
        assert str(hung) == "test/model"
        again = await asyncio.to_thread(
            httpx.post, f"{server.url}/v1/chat/completions", json=body("again") | {"stream": False}
        )
        assert again.status_code == 200  # on a fresh engine
        assert await asyncio.to_thread(probe, server, "livez") == 503  # the old one is still there


def test_a_quiet_engine_is_no_hung_engine(tmp_path: Path) -> None:
    with live_server(faulty(tmp_path / "m", token_delay=0.0)) as server:
        for _ in range(2):
            assert httpx.post(f"{server.url}/v1/chat/completions", json=body()).status_code == 200
            time.sleep(HANG * 1.5)
            assert probe(server, "livez") == 200
        assert server.snapshot.hung == ()


def test_readiness_waits_for_pinned_models(tmp_path: Path) -> None:
    settings = scripted_settings(tmp_path / "m", "one", models={"one": {"pinned": True}})
    container = Container(settings=settings)
    container.loader.override(ScriptedLoader(Script(load_delay=0.5)))
    with live_server(container) as server:
        answer = httpx.get(f"{server.url}/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "starting"})
        assert probe(server, "livez") == 200
        assert until(lambda: probe(server, "readyz") == 200, PATIENCE)
        (resident,) = server.snapshot.residents
        assert resident.state == "hot"
