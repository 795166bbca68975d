"""What connections refuse by themselves is counted, and has one line in the log."""

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.container import Container
from tests.http.test_metrics import Scrape
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import until

CANARY = "canary-in-the-coal-mine"
POST = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    settings = scripted_settings(
        tmp_path, "m", header_timeout=0.5, body_timeout=0.5, max_header_kb=2
    )
    with live_server(Container(settings=settings)) as server:
        yield server


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="portico"):
        yield


def answer_to(server: LiveServer, sent: str) -> tuple[str, str, str]:
    """Status, code and request id of what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(sent.encode())
        received = b""
        while piece := client.recv(65536):
            received += piece
    head, _, body = received.decode().partition("\r\n\r\n")
    first, *fields = head.split("\r\n")
    headers = dict(field.lower().split(": ", 1) for field in fields)
    return first.split()[1], json.loads(body)["error"]["code"], headers["x-request-id"]


HEAD = ("-", "-", "OTHER", "")
ROUTE = ("POST", "/v1/chat/completions", "POST", "/v1/chat/completions")


@pytest.mark.parametrize(
    ("sent", "status", "code", "asked"),
    [
        (f"GET /{CANARY} HTTP/1.1\r\nX-{CANARY}: ", "408", "request_timeout", HEAD),
        (f"GET /{CANARY} HTTP/1.1\r\nX: {CANARY * 200}", "431", "headers_too_large", HEAD),
        (f"{CANARY} is no HTTP\r\n\r\n", "400", "invalid_http", HEAD),
        (f"{POST}Transfer-Encoding: {CANARY}\r\n\r\n", "501", "invalid_http", HEAD),
        (f"{POST}Content-Length: 99\r\n\r\n{CANARY}", "408", "request_timeout", ROUTE),
        (
            f"{POST}Transfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
            "400",
            "invalid_http",
            ROUTE,
        ),
    ],
    ids=["slow-head", "large-head", "no-http", "encoding", "slow-body", "broken-body"],
)
def test_a_refusal_is_counted_and_logged_once(
    server: LiveServer,
    caplog: pytest.LogCaptureFixture,
    sent: str,
    status: str,
    code: str,
    asked: tuple[str, str, str, str],
) -> None:
    seen_status, seen_code, name = answer_to(server, sent)
    assert (seen_status, seen_code) == (status, code)

    def lines() -> list[logging.LogRecord]:
        return [
            record
            for record in caplog.records
            if record.name == "portico.requests" and record.__dict__["path"] != "/metrics"
        ]

    method, path, counted_method, handler = asked
    assert until(lambda: bool(lines()), 10)
    (line,) = (record.__dict__ for record in lines())
    assert (line["request_id"], line["method"], line["path"]) == (name, method, path)
    assert (line["status"], line["error"]) == (int(status), code)
    assert 0 <= line["total_ms"] < 60_000
    scrape = Scrape(server)
    assert scrape("request_errors_total") == scrape("request_errors_total", code=code) == 1
    labels = {"method": counted_method, "handler": handler, "status": status}
    assert scrape("http_requests_total", **labels) == 1
    assert scrape("http_requests_total") == 1
    assert not any(CANARY in str(record.__dict__) for record in caplog.records)
    assert not any(CANARY in str(sample) for sample in scrape.samples)
