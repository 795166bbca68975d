"""One line a request, with what an operator asks for, and nothing that was said."""

import hashlib
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.container import Container
from adapters.http.request_log import CLIENT_CLOSED_REQUEST
from adapters.scripted.engine import Script, ScriptedLoader
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import until

CANARY = "canary-in-the-coal-mine"
KEY = f"key-{CANARY}"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": CANARY}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    keys = {"laptop": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}}
    container = Container(settings=scripted_settings(tmp_path, "m", api_keys=keys))
    reply = " ".join([CANARY] * 400)
    script = Script(reply=reply, token_delay=0.01, prompt_delay=0.01)
    container.loader.override(ScriptedLoader(script))
    with live_server(container) as server:
        yield server


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="portico"):
        yield


def ask(server: LiveServer, **fields: object) -> httpx.Response:
    return httpx.post(
        f"{server.url}/v1/chat/completions",
        json=BODY | fields,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=30,
    )


def line(caplog: pytest.LogCaptureFixture, answer: httpx.Response) -> dict[str, Any]:
    """The fields of the answer's line; it is written after the answer."""
    name = answer.headers["x-request-id"]

    def mine() -> list[logging.LogRecord]:
        return [record for record in caplog.records if getattr(record, "request_id", "") == name]

    assert until(lambda: bool(mine()), 10)
    (record,) = mine()
    return record.__dict__


def test_a_client_that_leaves_amid_its_body_is_no_error(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = httpx.URL(server.url)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: 100\r\n"
    head += f"Content-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    with socket.create_connection((url.host, url.port or 0)) as client:
        client.sendall(f'{head}{{"model":'.encode())
        time.sleep(0.1)
    assert until(lambda: any(hasattr(record, "status") for record in caplog.records), 10)
    (said,) = [record.__dict__ for record in caplog.records if hasattr(record, "status")]
    assert said["status"] == CLIENT_CLOSED_REQUEST
    assert "error" not in said


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_has_a_line(
    server: LiveServer, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    said = line(caplog, ask(server, stream=stream, max_tokens=2))
    expected = {
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "key": "laptop",
        "model": "m",
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "cached_tokens": 0,
        "finish_reason": "length",
    }
    assert {name: said[name] for name in expected} == expected
    assert 0 <= said["queue_ms"] <= said["ttft_ms"] <= said["total_ms"]
    assert said["ttft_ms"] >= 10
    assert "error" not in said
    assert not any(CANARY in str(record.__dict__) for record in caplog.records)


def test_a_failure_has_its_code(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    said = line(caplog, ask(server, model="nope"))
    assert (said["status"], said["error"], said["model"]) == (404, "model_not_found", "nope")
    assert said["finish_reason"] == "error"
    answer = httpx.get(f"{server.url}/v1/models")
    said = line(caplog, answer)
    assert (said["status"], said["error"]) == (401, "invalid_api_key")
    assert "model" not in said
    assert "key" not in said


def test_a_client_that_left_is_told_apart(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    with httpx.stream(
        "POST",
        f"{server.url}/v1/chat/completions",
        json=BODY | {"stream": True},
        headers={"Authorization": f"Bearer {KEY}"},
    ) as answer:
        lines = answer.iter_lines()
        while CANARY not in next(lines):
            pass
    said = line(caplog, answer)
    assert (said["status"], said["finish_reason"]) == (200, "abort")
