"""Whole streams as they go over the wire: byte for byte, but for ids and times."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from tests.http.conftest import REPLIES
from tests.http.test_chat import WEATHER
from tests.servers import LiveServer, live_server, scripted_settings

FOLDER = Path(__file__).parent / "transcripts"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WITH_USAGE = {"stream_options": {"include_usage": True}}


def asking(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    container = Container(settings=scripted_settings(tmp_path / "models", "test/model"))
    container.loader.override(ScriptedLoader(Script(replies=REPLIES, burst=1, fail_after=12)))
    with live_server(container) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("chat", CHAT, asking("greet") | WITH_USAGE),
        ("thoughts", CHAT, asking("think")),
        ("tool_call", CHAT, asking("weather") | {"tools": [WEATHER]}),
        ("completion", TEXT, {"prompt": "greet"} | WITH_USAGE),
        ("failure", CHAT, asking("word " * 13)),
    ],
)
def test_a_stream_is_what_it_always_was(
    server: LiveServer, name: str, path: str, body: dict[str, Any]
) -> None:
    answer = httpx.post(f"{server.url}{path}", json={"model": "test/model", "stream": True} | body)
    said = re.sub(r'"id":"(chatcmpl|cmpl|call)[-_]\w+"', r'"id":"\1"', answer.text)
    said = re.sub(r'"created":\d+', '"created":0', said)
    assert said.encode() == (FOLDER / f"{name}.sse").read_bytes()
