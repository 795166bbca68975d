"""A live server over the scripted engine, and the official client on it."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from tests.servers import LiveServer, live_server, scripted_settings

TOOL_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'

REPLIES = {
    "greet": "Hello there, dear reader.",
    "umlauts": "Grüße aus Köln 👩‍🚀",
    "weather": f"Let me look.\n{TOOL_CALL}",
    "two": f"{TOOL_CALL}\n{TOOL_CALL}",
    "broken": '<tool_call>{"name": "get_weather", "arg</tool_call> sorry',
    "think": "<think>\nHm, let me see.\n</think>\n\nForty-two.",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    root = tmp_path / "models"
    container = Container(settings=scripted_settings(root, "test/model", "other"))
    container.loader.override(ScriptedLoader(Script(replies=REPLIES)))
    with live_server(container) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        yield client
