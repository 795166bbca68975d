"""API keys: asked for everywhere, before anything is read, and each with its own limits."""

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import BaseRoute
from starlette.types import Message, Scope

from adapters.cli.serve import application
from adapters.container import Container
from adapters.http.keys import KeyRing
from application.callers import Caller
from domain.access import Access
from tests.http.managed import error_of
from tests.servers import LiveServer, live_server, scripted_settings

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
KEYS = {name: f"{name}-canary" for name in ("boss", "guest", "slow", "thrifty", "frugal", "mate")}
LIMITS: dict[str, dict[str, Any]] = {
    "boss": {},
    "guest": {"models": ["m"]},
    "slow": {"requests_per_minute": 2},
    "thrifty": {"tokens_per_minute": 5},
    "frugal": {"tokens_per_minute": 100},
    "mate": {"cache_scope": "team"},
}


def as_(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@pytest.fixture
def container(tmp_path: Path) -> Container:
    keys = {
        name: {"sha256": hashlib.sha256(KEYS[name].encode()).hexdigest()} | limits
        for name, limits in LIMITS.items()
    }
    root = tmp_path / "models"
    return Container(
        settings=scripted_settings(root, "m", "org/other", api_keys=keys, api_key="old-canary")
    )


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An application to which nobody here has the key."""
    root = tmp_path_factory.mktemp("models")
    return application(Container(settings=scripted_settings(root, "m", api_key="boss-canary")))


@pytest.fixture
def server(container: Container) -> Iterator[LiveServer]:
    with live_server(container) as server:
        yield server


def every_route(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Path and method of each, those of included and mounted ones as well."""
    for route in routes:
        for holder in (route, getattr(route, "original_router", None)):
            yield from every_route(getattr(holder, "routes", None) or ())
        for method in getattr(route, "methods", None) or ():
            yield getattr(route, "path", ""), method


def with_keys(*keys: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), *((b"authorization", key) for key in keys)]


async def ask(
    app: FastAPI, path: str, method: str, headers: list[tuple[bytes, bytes]]
) -> tuple[int, bool]:
    """The status, and whether any of the body was read."""
    read, sent = False, list[Message]()

    async def receive() -> Message:
        nonlocal read
        read = True
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    return sent[0]["status"], read


async def test_every_route_but_liveness_asks_for_a_key_before_it_reads(
    container: Container,
) -> None:
    app = application(container)
    routes = set(every_route(app.routes))
    described = {
        (path, method.upper()) for path, item in app.openapi()["paths"].items() for method in item
    }
    assert {("/openapi.json", "GET"), ("/docs", "GET"), ("/readyz", "GET")} <= routes
    assert {("/livez", "HEAD"), ("/readyz", "HEAD")} <= routes
    assert len(described) >= 15
    for path, method in routes | described:
        status, read = await ask(app, path.replace("{model_id}", "m"), method, with_keys())
        if path == "/livez":
            assert status == 200
        else:
            assert (status, read) == (401, False), path
    for path in (
        "/",
        "/nonesuch",
        "/livez/",
        "/livez/x",
        "/livez/../v1/models",
        "/v1/models?/livez",
    ):
        assert await ask(app, path, "GET", with_keys()) == (401, False), path


async def test_a_route_that_is_added_later_is_closed(container: Container) -> None:
    app = application(container)
    app.add_api_route("/later", lambda: {})
    assert (await ask(app, "/later", "GET", with_keys()))[0] == 401
    assert (await ask(app, "/later", "GET", with_keys(b"Bearer old-canary")))[0] == 200


RIGHT = b"Bearer boss-canary"


@pytest.mark.parametrize(
    "keys",
    [
        (),
        (b"",),
        (b"Bearer",),
        (b"Bearer ",),
        (b"Bearer  ",),
        (b"Bearer wrong",),
        (b"Bearer boss-canar",),
        (b"Bearer boss-canary ",),
        (b"Basic boss-canary",),
        (b"boss-canary",),
        (b"Bearer \xe9\xff\x00",),
        ("Bearer ключ".encode(),),
        (b"Bearer " + b"x" * 2**20,),
        (b"x" * 2**20,),
        (RIGHT, RIGHT),
        (b"Bearer wrong", RIGHT),
        (RIGHT, b"Bearer wrong"),
    ],
)
async def test_a_wrong_key_is_refused_whatever_it_is(
    container: Container, keys: tuple[bytes, ...]
) -> None:
    assert await ask(application(container), "/v1/models", "GET", with_keys(*keys)) == (401, False)


async def test_digests_are_compared_as_bytes_in_constant_time_and_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[object, object]] = []
    compare = hmac.compare_digest

    def spy(known: bytes, given: bytes) -> bool:
        seen.append((known, given))
        return compare(known, given)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    callers = [Caller(Access(name), lambda: 0.0) for name in ("a", "b", "c")]
    ring = KeyRing((hashlib.sha256(c.access.name.encode()).digest(), c) for c in callers)
    for key in (b"a", b"c", b"wrong", b"\xff"):
        seen.clear()
        owner = ring.owner(key)
        assert (owner.access.name.encode() if owner else b"wrong") in (key, b"wrong")
        assert len(seen) == 3
        assert all(isinstance(side, bytes) and len(side) == 32 for pair in seen for side in pair)


@pytest.mark.parametrize("name", [*KEYS, "old"])
def test_every_key_opens(server: LiveServer, name: str) -> None:
    key = KEYS.get(name, "old-canary")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        assert client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}]
        )


def test_a_refusal_comes_while_the_body_is_still_on_its_way(server: LiveServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_models_that_a_key_may_not_use_are_not_there_for_it(server: LiveServer) -> None:
    def models(name: str) -> list[str]:
        answer = httpx.get(f"{server.url}/v1/models", headers=as_(name))
        return [model["id"] for model in answer.json()["data"]]

    assert models("boss") == ["m", "org/other"]
    assert models("guest") == ["m"]
    hidden = {"model": "org/other"}
    answers = [
        httpx.get(f"{server.url}/v1/models/org/other", headers=as_("guest")),
        httpx.get(f"{server.url}/v1/models/org%2Fother", headers=as_("guest")),
        httpx.post(f"{server.url}/v1/chat/completions", json=BODY | hidden, headers=as_("guest")),
        httpx.post(
            f"{server.url}/v1/completions", json={"prompt": "x"} | hidden, headers=as_("guest")
        ),
    ]
    for answer in answers:
        assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
        other = httpx.get(f"{server.url}/v1/models/org/none", headers=as_("guest"))
        assert error_of(other)["message"] == error_of(answer)["message"].replace("other", "none")
    assert server.snapshot.residents == ()


def test_a_key_with_some_models_does_not_manage_the_server(server: LiveServer) -> None:
    for method, path in (("GET", "models"), ("GET", "status"), ("DELETE", "models/m")):
        answer = httpx.request(method, f"{server.url}/api/v1/{path}", headers=as_("guest"))
        assert (answer.status_code, error_of(answer)["code"]) == (403, "not_allowed")
    assert httpx.get(f"{server.url}/api/v1/status", headers=as_("slow")).status_code == 200


def test_requests_per_minute(server: LiveServer) -> None:
    url = f"{server.url}/v1/chat/completions"
    answers = [httpx.post(url, json=BODY, headers=as_("slow")) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["1", "0", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
    refused = answers[2]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert error_of(refused)["code"] == "rate_limit_exceeded"
    assert error_of(refused)["type"] == "rate_limit_error"
    assert httpx.post(url, json=BODY, headers=as_("boss")).status_code == 200
    assert "x-ratelimit-limit-requests" not in httpx.get(url, headers=as_("boss")).headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_tokens_per_minute(server: LiveServer, path: str, stream: bool) -> None:
    url = f"{server.url}/v1/{path}"
    body = (BODY if path.startswith("chat") else {"model": "m", "prompt": "hi there"}) | {
        "stream": stream
    }
    first = httpx.post(url, json=body, headers=as_("thrifty"))
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-tokens"] == "5"
    if not stream:
        spent = first.json()["usage"]["total_tokens"]
        listed = httpx.get(f"{server.url}/v1/models", headers=as_("thrifty"))
        assert listed.headers["x-ratelimit-remaining-tokens"] == str(max(5 - spent, 0))
    for _ in range(10):  # how much a reply takes is the engine's business
        refused = httpx.post(url, json=body, headers=as_("thrifty"))
        if refused.status_code == 429:
            break
    assert "tokens per minute" in error_of(refused)["message"]
    assert "this one may take 5" in error_of(refused)["message"]  # all of it: it sets no end
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 5
    assert int(refused.headers["retry-after"]) >= 1
    assert httpx.get(f"{server.url}/v1/models", headers=as_("thrifty")).status_code == 200


async def test_many_requests_at_once_do_not_overdraw_a_key(server: LiveServer) -> None:
    """Before, each was let in as long as none had ended."""
    body = BODY | {"max_tokens": 10, "messages": [{"role": "user", "content": "one two three"}]}
    async with httpx.AsyncClient(base_url=server.url, headers=as_("frugal"), timeout=60) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=body) for _ in range(40))
        )
    spent = [a.json()["usage"]["total_tokens"] for a in answers if a.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(spent) + len(refused) == 40
    assert spent
    assert sum(spent) <= 100
    assert refused
    assert all("tokens per minute" in error_of(answer)["message"] for answer in refused)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"host", b"origin", b"authorization", b"forwarded", b"x-api-key"]),
            st.binary(max_size=60) | st.sampled_from([b"localhost", b"null", RIGHT[:-1]]),
        ),
        max_size=4,
    ),
    st.sampled_from(["/v1/models", "/readyz", "/docs", "/nonesuch", "/api/v1/status"]),
)
def test_no_headers_open_the_door_or_break_it(
    closed: FastAPI, headers: list[tuple[bytes, bytes]], path: str
) -> None:
    assert asyncio.run(ask(closed, path, "GET", headers)) in ((401, False), (403, False))


def test_the_secrets_are_nowhere_in_what_is_shown(container: Container) -> None:
    settings = container.settings()
    app = application(container)
    shown = [repr(settings), str(settings), settings.model_dump_json(), repr(app.user_middleware)]
    assert not any("canary" in text for text in shown)
    assert not any(KEYS[name] in json.dumps(app.openapi()) for name in KEYS)
