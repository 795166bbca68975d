"""Host and Origin: names and pages that have no business here."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.container import Container
from tests.http.managed import error_of
from tests.servers import LiveServer, live_server, scripted_settings

PAGE = "https://chat.example.com"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(Container(settings=scripted_settings(tmp_path / "m", "m"))) as server:
        yield server


@pytest.fixture
def with_page(tmp_path: Path) -> Iterator[LiveServer]:
    settings = scripted_settings(
        tmp_path / "m",
        "m",
        host="0.0.0.0",  # what is listened on is the test's affair
        api_key="sesame",
        cors_origins=PAGE,
        allowed_hosts="portico.lan",
    )
    with live_server(Container(settings=settings)) as server:
        yield server


def raw(server: LiveServer, request: bytes) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize("path", ["/v1/models", "/livez", "/readyz", "/docs", "/nonesuch"])
@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:8000", "a/b?", "localhost/livez?", "x@localhost", "", "127.1"]
)
def test_an_unknown_host_is_refused(server: LiveServer, host: str, path: str) -> None:
    answer = httpx.get(f"{server.url}{path}", headers={"Host": host})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "host_not_allowed")
    assert "allowed_hosts" in error_of(answer)["message"]
    assert answer.headers["x-request-id"]


def test_a_missing_host_or_two_are_refused(server: LiveServer) -> None:
    assert raw(server, b"GET /v1/models HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")
    # HTTP/1.1 demands just one, and so the parser refuses.
    for hosts in (b"", b"Host: localhost\r\nHost: evil.test\r\n"):
        request = b"GET /v1/models HTTP/1.1\r\n" + hosts + b"\r\n"
        assert raw(server, request).startswith(b"HTTP/1.1 400 ")


def test_the_host_decides_whatever_the_target_says(server: LiveServer) -> None:
    """`BadHost` (CVE-2026-48710): no path or host is ever taken from a URL put together."""
    target = b"GET http://localhost/v1/models HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    assert raw(server, target).startswith(b"HTTP/1.1 403 ")
    forwarded = {
        "Host": "evil.test",
        "X-Forwarded-Host": "localhost",
        "Forwarded": "host=localhost",
    }
    assert httpx.get(f"{server.url}/v1/models", headers=forwarded).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://localhost:1", "", "\xff"])
def test_a_foreign_page_is_refused(server: LiveServer, origin: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json=body,
        headers={"Origin": origin.encode("latin-1")},  # type: ignore[dict-item]
    )
    assert (answer.status_code, error_of(answer)["code"]) == (403, "origin_not_allowed")
    assert "cors_origins" in error_of(answer)["message"]
    assert server.snapshot.residents == ()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", ""])
def test_a_page_can_not_ask_as_for_a_picture(server: LiveServer, site: str, mode: str) -> None:
    marks = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    answer = httpx.get(f"{server.url}/api/v1/search?q=x", headers=marks)
    assert (answer.status_code, error_of(answer)["code"]) == (403, "origin_not_allowed")


def test_links_and_the_servers_own_pages_are_followed(server: LiveServer) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(f"{server.url}/docs", headers=link).status_code == 200
    for site in ("same-origin", "none"):
        marks = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
        assert httpx.get(f"{server.url}/openapi.json", headers=marks).status_code == 200


def test_pages_of_the_server_itself_are_not_foreign(server: LiveServer) -> None:
    answer = httpx.get(f"{server.url}/v1/models", headers={"Origin": server.url})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_cors_is_off(server: LiveServer) -> None:
    asked = {"Origin": server.url, "Access-Control-Request-Method": "POST"}
    for origin in (server.url, PAGE):
        answer = httpx.options(f"{server.url}/v1/models", headers=asked | {"Origin": origin})
        assert not answer.is_success
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_that_is_allowed_can_ask_and_read(with_page: LiveServer) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    preflight = httpx.options(f"{with_page.url}/v1/chat/completions", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    refused = httpx.get(f"{with_page.url}/v1/models", headers={"Origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE  # so that the page sees why
    key = {"Authorization": "Bearer sesame"}
    answer = httpx.get(f"{with_page.url}/v1/models", headers={"Origin": PAGE} | key)
    assert answer.status_code == 200
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    for headers in (asked, key):
        foreign = headers | {"Origin": "https://evil.test"}
        answer = httpx.options(f"{with_page.url}/v1/models", headers=foreign)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_an_open_server_can_be_probed_by_its_address(with_page: LiveServer) -> None:
    for host in ("10.1.2.3:8000", "[fd00::7]:8000", "portico.lan", "localhost"):
        assert httpx.get(f"{with_page.url}/livez", headers={"Host": host}).status_code == 200
    assert httpx.get(f"{with_page.url}/livez", headers={"Host": "evil.test"}).status_code == 403
