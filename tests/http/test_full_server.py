"""A server that is full says so before it looks at the rest of a request, and to nobody else."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from adapters.container import Container
from tests.http.test_metrics import Scrape
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import until

KEYS = {"boss": "boss-canary", "guest": "guest-canary"}
PATHS = ["/v1/chat/completions", "/v1/completions"]
FIELDS: dict[str, dict[str, Any]] = {
    PATHS[0]: {"messages": [{"role": "user", "content": "go"}]},
    PATHS[1]: {"prompt": "go"},
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One place, and one who may wait; both are taken, and `idle` is in memory."""
    root = tmp_path_factory.mktemp("models")
    keys = {
        name: {"sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in KEYS.items()
    }
    settings = scripted_settings(
        root,
        "m",
        "idle",
        "cold",
        scripted={"slots": 1, "prompt_delay": 60.0, "reply": "done"},
        max_waiting=1,
        default_model="m",
        api_keys=keys | {"guest": keys["guest"] | {"models": ["idle"]}},
        first_event_patience=0.2,
    )
    with live_server(Container(settings=settings)) as server, ThreadPoolExecutor(3) as pool:
        send(server, "/api/v1/models/load", model="idle")
        for _ in range(2):
            pool.submit(send, server, PATHS[0], model="m", **FIELDS[PATHS[0]])
        assert until(lambda: server.snapshot.leases == 2, 20)
        yield server
        server.loop.call_soon_threadsafe(server.loop.create_task, server.container.models().close())


def send(server: LiveServer, path: str, key: str = "boss", **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEYS.get(key, key)}"}
    try:
        return httpx.post(f"{server.url}{path}", json=body, headers=headers, timeout=100)
    except httpx.RemoteProtocolError:  # one of those that hold the places, at the end
        return httpx.Response(503)


def told(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["code"]


BUSY = (429, "rate_limit_exceeded")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("more", [{}, {"model": "m"}, {"model": "m", "temperature": "hot"}])
def test_whatever_else_is_wrong_it_is_full(
    full: LiveServer, path: str, stream: bool, more: dict[str, Any]
) -> None:
    answer = send(full, path, stream=stream, **FIELDS[path], **more)
    assert told(answer) == BUSY
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", [*PATHS, "/v1//completions"])
def test_it_is_full_for_bodies_that_come_in_pieces(full: LiveServer, path: str) -> None:
    body = json.dumps(FIELDS[path.replace("//", "/")]).encode()
    headers = {"Authorization": f"Bearer {KEYS['boss']}", "Content-Type": "application/json"}

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 10):
            yield body[at : at + 10]
            time.sleep(0.01)

    answer = httpx.post(f"{full.url}{path}", content=pieces(), headers=headers, timeout=30)
    assert told(answer) == BUSY


@pytest.mark.parametrize("path", PATHS)
def test_what_is_too_large_is_too_large(full: LiveServer, path: str) -> None:
    answer = send(full, path, **FIELDS[path], more=[{}] * 30_000)
    assert told(answer) == (413, "body_too_large")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("key", "body", "expected"),
    [
        ("nobody", {"model": "m"}, (401, "invalid_api_key")),
        ("guest", {"model": "m"}, (404, "model_not_found")),
        ("boss", {"model": "unknown"}, (404, "model_not_found")),
        ("boss", {"model": "../m"}, (400, "invalid_value")),
        ("boss", {"model": ["m"]}, (400, "invalid_type")),
        ("boss", {"model": "idle", "temperature": "hot"}, (400, "invalid_type")),
        ("boss", {"model": "cold"}, BUSY),
    ],
)
def test_others_are_told_what_they_would_be_told_anyway(
    full: LiveServer, path: str, key: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert told(send(full, path, key, **FIELDS[path], **body)) == expected


@pytest.mark.parametrize("path", PATHS)
def test_what_is_no_request_is_none(full: LiveServer, path: str) -> None:
    headers = {"Authorization": f"Bearer {KEYS['boss']}", "Content-Type": "application/json"}
    for content, kind, expected in (
        (b'{"model": "m"', "application/json", 400),
        (b'["m"]', "application/json", 400),
        (b'{"model": "m"}', "text/plain", 415),
        (b"", "application/json", 400),
    ):
        asked = headers | {"Content-Type": kind}
        answer = httpx.post(f"{full.url}{path}", content=content, headers=asked)
        assert answer.status_code == expected, content


def test_who_need_not_wait_is_served(full: LiveServer) -> None:
    with httpx.stream(
        "POST",
        f"{full.url}{PATHS[0]}",
        json=FIELDS[PATHS[0]] | {"model": "idle", "stream": True},
        headers={"Authorization": f"Bearer {KEYS['guest']}"},
        timeout=30,
    ) as answer:
        assert answer.status_code == 200


def test_a_refusal_is_counted_and_logged_by_its_model(
    full: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    def counts() -> list[float]:
        scrape = Scrape(full, KEYS["boss"])
        return [
            scrape("request_errors_total", model_name="m", code="rate_limit_exceeded") or 0,
            scrape("http_requests_total", handler=PATHS[0], status="429") or 0,
        ]

    before = counts()
    with caplog.at_level(logging.INFO, logger="portico"):
        send(full, PATHS[0], **FIELDS[PATHS[0]])
        assert until(lambda: counts() == [count + 1 for count in before])
    (line,) = [r for r in caplog.records if getattr(r, "error", "") == "rate_limit_exceeded"]
    assert line.__dict__["model"] == "m"
    assert line.__dict__["key"] == "boss"
