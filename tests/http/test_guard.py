"""The API key, the size of bodies, and the log."""

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adapters.cli.serve import application
from adapters.container import Container
from adapters.settings import Settings
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import until

OPEN = {"/livez"}
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def locked(root: Path) -> Settings:
    return scripted_settings(root, "m", api_key="sesame-canary", max_body_mb=0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(Container(settings=locked(tmp_path / "m"))) as server:
        yield server


def test_every_route_but_liveness_asks_for_the_key(server: LiveServer) -> None:
    app = application(Container(settings=server.container.settings()))
    routes = [(path, method) for path, item in app.openapi()["paths"].items() for method in item]
    assert len(routes) >= 6
    for path, method in routes:
        url = server.url + path.replace("{model_id}", "m")
        answer = httpx.request(method, url, json={})
        assert (answer.status_code == 401) == (path not in OPEN), path


def test_the_key_is_in_the_description_where_it_is_asked_for(tmp_path: Path) -> None:
    document = application(Container(settings=locked(tmp_path / "m"))).openapi()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, item in document["paths"].items():
        for operation in item.values():
            assert ("security" in operation) == (path not in OPEN), path
    free = application(Container(settings=scripted_settings(tmp_path / "free", "m")))
    assert "securitySchemes" not in free.openapi()["components"]


@pytest.mark.parametrize(
    "key", [None, "", "Bearer", "Bearer wrong", "Basic sesame-canary", "Bearer é"]
)
def test_a_wrong_key_is_refused_in_openais_shape(server: LiveServer, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": key.encode("latin-1")}
    answer = httpx.get(f"{server.url}/v1/models", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "canary" not in answer.text


def test_the_right_key_opens(server: LiveServer) -> None:
    headers = {"Authorization": "Bearer sesame-canary"}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=BODY, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(server: LiveServer, chunked: bool) -> None:
    body = b'{"x": "' + b"x" * 20_000 + b'"}'
    headers = {"Authorization": "Bearer sesame-canary", "Content-Type": "application/json"}
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=iter([body]) if chunked else body,
        headers=headers,
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_requests_are_logged_by_their_id_and_keys_are_not(
    server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="portico.requests"):
        headers = {"Authorization": "Bearer sesame-canary"}
        first = httpx.get(f"{server.url}/v1/models", headers=headers)
        second = httpx.get(f"{server.url}/v1/models/a%0d%0aforged", headers=headers)
        ids = [answer.headers["x-request-id"] for answer in (first, second)]
        assert ids[0] != ids[1]
        # A request is logged once it has been answered: by then its client may be a step ahead.
        assert until(lambda: all(request_id in caplog.text for request_id in ids))
    assert "canary" not in caplog.text
    assert "\nforged" not in caplog.text
    assert "canary" not in repr(server.container.settings())
