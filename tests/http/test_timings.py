"""`include_timings`: where the time of an answer went, in llama.cpp's words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from tests.servers import LiveServer, live_server, scripted_settings

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "go on"}]}
TEXT: dict[str, Any] = {"prompt": "go on", "max_tokens": 16}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    settings = scripted_settings(tmp_path, "m", default_model="m")
    container = Container(settings=settings)
    script = Script(reply="one two three four", prompt_delay=0.02, token_delay=0.01)
    container.loader.override(ScriptedLoader(script))
    with live_server(container) as server:
        yield server


def ask(server: LiveServer, body: dict[str, Any], **fields: object) -> httpx.Response:
    path = "chat/completions" if "messages" in body else "completions"
    return httpx.post(f"{server.url}/v1/{path}", json=body | fields, timeout=30)


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def check(timings: dict[str, Any], prompt: int, predicted: int) -> None:
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (
        0,
        prompt,
        predicted,
    )
    assert timings["prompt_ms"] >= 20
    assert timings["predicted_ms"] >= 25
    assert timings["ttft_ms"] >= timings["prompt_ms"]
    parts = timings["queue_ms"] + timings["prompt_ms"] + timings["predicted_ms"]
    assert timings["ttft_ms"] <= timings["total_ms"] <= parts + 0.01
    assert timings["predicted_per_second"] == pytest.approx(
        1000 * predicted / timings["predicted_ms"], rel=0.01
    )
    assert timings["prompt_per_token_ms"] == pytest.approx(timings["prompt_ms"] / prompt, rel=0.01)


@pytest.mark.parametrize(("body", "prompt"), [(CHAT, 3), (TEXT, 2)])
@pytest.mark.parametrize("name", ["include_timings", "timings_per_token"])
def test_an_answer_has_them_when_asked(
    server: LiveServer, body: dict[str, Any], prompt: int, name: str
) -> None:
    check(ask(server, body, **{name: True}).json()["timings"], prompt, 4)


@pytest.mark.parametrize("body", [CHAT, TEXT])
@pytest.mark.parametrize("asked", [None, False])
def test_nobody_gets_them_unasked(
    server: LiveServer, body: dict[str, Any], asked: bool | None
) -> None:
    assert "timings" not in ask(server, body, include_timings=asked).json()
    assert not any("timings" in c for c in chunks(ask(server, body, stream=True)))


@pytest.mark.parametrize(("body", "prompt"), [(CHAT, 3), (TEXT, 2)])
@pytest.mark.parametrize("with_usage", [True, False])
def test_a_stream_has_them_once_at_its_end(
    server: LiveServer, body: dict[str, Any], prompt: int, with_usage: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    said = chunks(ask(server, body, stream=True, include_timings=True, **options))
    assert ["timings" in chunk for chunk in said] == [False] * (len(said) - 1) + [True]
    assert ("usage" in said[-1]) is with_usage
    check(said[-1]["timings"], prompt, 4)


def test_choices_count_together(server: LiveServer) -> None:
    check(ask(server, CHAT, n=2, include_timings=True).json()["timings"], 3, 8)
    said = chunks(ask(server, CHAT, n=2, stream=True, include_timings=True))
    assert sum("timings" in chunk for chunk in said) == 1
    check(said[-1]["timings"], 3, 8)


def test_it_is_a_switch(server: LiveServer) -> None:
    answer = ask(server, CHAT, include_timings="yes")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "include_timings"


def test_the_official_client_reads_them(server: LiveServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
        answer = client.chat.completions.create(
            model="m", extra_body={"include_timings": True}, **CHAT
        )
    assert answer.model_extra is not None
    check(answer.model_extra["timings"], 3, 4)
