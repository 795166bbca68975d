"""Bodies, paths and queries that no honest client sends: refused by name, never a 5xx."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import FakeCatalog
from tests.http.managed import Hub, card, container, error_of, serving

GOOD: dict[str, dict[str, Any]] = {
    "/models/load": {"model": "org/a", "pin": False, "wait": True},
    "/models/unload": {"model": "org/a", "force": False},
    "/models/pin": {"model": "org/a", "pinned": False},
    "/estimate": {"model": "org/a", "context_length": 10, "concurrency": 1, "kv_bits": None},
    "/pulls": {"model": "org/a", "revision": "main"},
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(container(FakeCatalog(card("org/a"), card("b")), Hub())) as (_, client):
        yield client


def post(client: httpx.Client, path: str, content: bytes, kind: str) -> httpx.Response:
    headers = {"content-type": kind}
    return client.post(f"/api/v1{path}", content=content, headers=headers)


@pytest.mark.parametrize(
    ("path", "change", "param", "code"),
    [
        ("/models/load", {"model": 5}, "model", "invalid_type"),
        ("/models/load", {"model": "a/b/c"}, "model", "invalid_value"),
        ("/models/load", {"model": "a\0b"}, "model", "invalid_value"),
        ("/models/load", {"model": ""}, "model", "invalid_value"),
        ("/models/load", {"pin": 1}, "pin", "invalid_type"),
        ("/models/load", {"wait": "yes"}, "wait", "invalid_type"),
        ("/models/unload", {"force": 0}, "force", "invalid_type"),
        ("/models/pin", {"pinned": None}, "pinned", "invalid_type"),
        ("/estimate", {"context_length": 0}, "context_length", "invalid_value"),
        ("/estimate", {"context_length": 10**30}, "context_length", "invalid_value"),
        ("/estimate", {"context_length": 1.5}, "context_length", "invalid_type"),
        ("/estimate", {"concurrency": 33}, "concurrency", "invalid_value"),
        ("/estimate", {"kv_bits": 3}, "kv_bits", "invalid_value"),
        ("/pulls", {"revision": "../../etc"}, "revision", "invalid_value"),
        ("/pulls", {"revision": "a..b"}, "revision", "invalid_value"),
        ("/pulls", {"revision": "main\n"}, "revision", "invalid_value"),
        ("/pulls", {"revision": ""}, "revision", "invalid_value"),
        ("/pulls", {"revision": "main/"}, "revision", "invalid_value"),
        ("/pulls", {"revision": "a//b"}, "revision", "invalid_value"),
        ("/pulls", {"revision": "a/.b"}, "revision", "invalid_value"),
        ("/pulls", {"revision": "x" * 201}, "revision", "invalid_value"),
        ("/pulls", {"revision": 1}, "revision", "invalid_type"),
    ],
)
def test_bad_values_are_refused_by_name(
    client: httpx.Client, path: str, change: dict[str, Any], param: str, code: str
) -> None:
    answer = client.post(f"/api/v1{path}", json=GOOD[path] | change)
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize("path", GOOD)
def test_a_body_without_a_model_is_refused_and_unknown_fields_are_not(
    client: httpx.Client, path: str
) -> None:
    missing = client.post(f"/api/v1{path}", json={})
    assert (missing.status_code, error_of(missing)["code"]) == (400, "missing_required_parameter")
    assert client.post(f"/api/v1{path}", json=GOOD[path] | {"colour": 1}).status_code < 300


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "content",
    [b"", b"{bad", b"[1]", b"null", b'{"model": "\\ud800"}', b'{"model": ' + b"9" * 5000 + b"}"],
)
def test_what_is_no_json_object_is_a_bad_request(
    client: httpx.Client, path: str, content: bytes
) -> None:
    answer = post(client, path, content, "application/json")
    assert answer.status_code == 400
    error_of(answer)
    assert post(client, path, b"{}", "text/plain").status_code == 415


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
FIELDS = sorted({name for body in GOOD.values() for name in body} | {"x"})
many = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("path", GOOD)
@many
@given(
    changes=st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4),
    raw=st.none() | st.binary(),
)
def test_no_body_gives_a_server_error(
    client: httpx.Client, path: str, changes: dict[str, Any], raw: bytes | None
) -> None:
    content = json.dumps(GOOD[path] | changes).encode() if raw is None else raw
    kind = "application/json" if raw is None or len(raw) % 3 else "text/plain"
    answer = post(client, path, content, kind)
    assert answer.status_code < 500
    if answer.status_code >= 300:
        error_of(answer)


def quoted(raw: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in raw)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models/{}"),
        ("DELETE", "/models/{}"),
        ("GET", "/pulls/{}"),
        ("GET", "/pulls/{}/events"),
        ("POST", "/pulls/{}/cancel"),
        ("POST", "/pulls/{}/resume"),
        ("GET", "/search?q={}"),
        ("GET", "/search?limit={}"),
        ("GET", "/cache?{}"),
        ("GET", "/status?{}"),
    ],
)
@many
@given(
    raw=st.binary(min_size=1, max_size=30)
    | st.text(min_size=1).map(lambda t: t.encode("utf-8", "replace"))
)
def test_no_path_and_no_query_gives_a_server_error(
    client: httpx.Client, method: str, path: str, raw: bytes
) -> None:
    answer = client.request(method, f"/api/v1{path.format(quoted(raw))}")
    assert answer.status_code < 500
    assert not answer.is_redirect
    if answer.status_code >= 400:
        error_of(answer)
