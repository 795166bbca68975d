"""Models and memory from the outside: look, load, unload, pin, delete, estimate."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from adapters.cli.serve import application
from adapters.scripted.engine import Script
from tests.fakes import FakeCatalog
from tests.http.managed import card, container, error_of, events, serving
from tests.servers import LiveServer
from tests.waiting import until

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
HELD = {"leases", "waiting", "idle_seconds", "memory", "kv_bits"}
HELD |= {"concurrency", "stats"}


@pytest.fixture
def running() -> Iterator[tuple[LiveServer, httpx.Client]]:
    """Room for two of four models; `hog` needs the whole budget."""
    cards = card("org/a"), card("b"), card("demo"), card("hog", 2500), card("vast", 9000)
    catalog = FakeCatalog(*cards, elsewhere=["demo"])
    with serving(container(catalog, budget=2500)) as running:
        yield running


@pytest.fixture
def client(running: tuple[LiveServer, httpx.Client]) -> httpx.Client:
    return running[1]


def load(client: httpx.Client, model: str, **more: Any) -> httpx.Response:
    return client.post("/api/v1/models/load", json={"model": model} | more)


def hot(client: httpx.Client) -> list[str]:
    return [resident["id"] for resident in client.get("/api/v1/status").json()["residents"]]


def test_a_model_is_described_from_its_files_and_its_memory(client: httpx.Client) -> None:
    cold = client.get("/api/v1/models/org/a").json()
    assert cold == {
        "id": "org/a",
        "state": "loadable",
        "size_bytes": 1000,
        "quantization": "4-bit",
        "architecture": "llama",
        "context_length": 512,
        "max_context_length": 512,
        "capabilities": {"chat_template": True, "tools": True, "thinking": False},
        "pinned": False,
        "idle_ttl": None,
        "last_used": None,
        "revision": "5c0ffee",
        "newer_revision": None,
        "location": "/models/org/a",
        "created": 1_700_000_000,
    }
    assert load(client, "org/a").status_code == 200
    warm = client.get("/api/v1/models/org%2Fa").json()
    assert set(warm) - set(cold) == HELD
    assert (warm["state"], warm["leases"], warm["waiting"]) == ("hot", 0, 0)
    assert warm["memory"] == {"weights": 1000, "kv_cache": 0, "prefill": 0, "total": 1000}
    assert abs(warm["last_used"] - time.time()) < 10
    listed = client.get("/api/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["b", "demo", "hog", "org/a", "vast"]
    assert {model["id"]: "memory" in model for model in listed}["org/a"]


def test_the_last_use_is_known_after_a_model_has_left(client: httpx.Client) -> None:
    load(client, "b")
    client.post("/api/v1/models/unload", json={"model": "b"})
    models = client.get("/api/v1/models").json()["data"]
    last_uses = {model["id"]: model["last_used"] for model in models}
    assert abs(last_uses.pop("b") - time.time()) < 10
    assert set(last_uses.values()) == {None}


@pytest.mark.parametrize("path", ["nope", "../etc/passwd", "a/b/c", "a%00b", "x" * 5000])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_is_no_model_is_not_found(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, f"/api/v1/models/{path}")
    assert answer.status_code == 404
    assert error_of(answer)["code"] in ("model_not_found", None)


def test_a_load_is_answered_once_the_model_is_hot_and_can_pin(client: httpx.Client) -> None:
    loaded = load(client, "b", pin=True).json()
    assert (loaded["id"], loaded["state"], loaded["pinned"]) == ("b", "hot", True)
    assert load(client, "b").json()["pinned"]
    assert not load(client, "b", pin=False).json()["pinned"]
    missing = load(client, "nope")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


def test_a_load_that_fails_says_so_and_pins_nothing() -> None:
    with serving(container(FakeCatalog(card("a")), script=Script(fail_load=True))) as (_, client):
        answer = load(client, "a", pin=True)
        assert (answer.status_code, error_of(answer)["code"]) == (500, "engine_failed")
        assert not client.get("/api/v1/models/a").json()["pinned"]


def test_what_can_never_fit_is_refused_with_its_numbers(client: httpx.Client) -> None:
    answer = load(client, "vast")
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "model_too_large", "model")
    assert "raise `memory_budget_gb`" in error["message"]
    assert error["details"]["need"] == error["details"]["weights"] == 9000
    assert error["details"]["budget"] == 2500
    chat = client.post("/v1/chat/completions", json=CHAT | {"model": "vast"})
    assert error_of(chat) == error


def test_a_pinned_model_stays_and_the_refusal_says_what_it_holds(client: httpx.Client) -> None:
    load(client, "b", pin=True)
    answer = load(client, "hog")
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "model_too_large")
    assert "unpin a model" in error["message"]
    assert error["details"]["pinned"] == 1000
    assert hot(client) == ["b"]
    pin = {"model": "b", "pinned": False}
    assert not client.post("/api/v1/models/pin", json=pin).json()["pinned"]
    assert load(client, "hog").status_code == 200
    assert hot(client) == ["hog"]


def test_models_are_pinned_before_they_are_loaded(client: httpx.Client) -> None:
    pinned = client.post("/api/v1/models/pin", json={"model": "org/a", "pinned": True}).json()
    assert (pinned["state"], pinned["pinned"]) == ("loadable", True)
    missing = client.post("/api/v1/models/pin", json={"model": "nope", "pinned": True})
    assert missing.status_code == 404


def test_an_unload_frees_the_memory(client: httpx.Client) -> None:
    load(client, "b")
    unload = {"model": "b"}
    answer = client.post("/api/v1/models/unload", json=unload)
    assert answer.json() == {"model": "b", "was_loaded": True}
    assert client.get("/api/v1/status").json()["memory_used"] == 0
    assert client.post("/api/v1/models/unload", json=unload).json()["was_loaded"] is False
    missing = client.post("/api/v1/models/unload", json={"model": "nope"})
    assert missing.status_code == 404


def test_a_delete_takes_it_off_the_disk(client: httpx.Client) -> None:
    load(client, "org/a")
    answer = client.delete("/api/v1/models/org/a")
    assert answer.json() == {"model": "org/a", "freed_bytes": 1000}
    assert client.get("/api/v1/models/org/a").status_code == 404
    assert hot(client) == []
    load(client, "demo")
    not_ours = client.delete("/api/v1/models/demo")
    assert (not_ours.status_code, error_of(not_ours)["param"]) == (400, "model")
    assert hot(client) == ["demo"]


def test_models_in_use_stay_unless_forced() -> None:
    script = Script(reply="word " * 500, token_delay=0.01)
    with serving(container(FakeCatalog(card("a"), card("b")), script=script, budget=1500)) as (
        server,
        client,
    ):
        body = CHAT | {"model": "a", "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            assert until(lambda: server.snapshot.leases == 1)
            resident = client.get("/api/v1/models/a").json()
            assert (resident["leases"], resident["idle_seconds"]) == (1, 0)
            for answer in (
                client.post("/api/v1/models/unload", json={"model": "a"}),
                client.delete("/api/v1/models/a"),
            ):
                assert (answer.status_code, error_of(answer)["code"]) == (409, "model_in_use")
                assert "unload it with `force`" in error_of(answer)["message"]
            busy = load(client, "b", wait=False)
            assert busy.status_code == 429
            assert int(busy.headers["retry-after"]) >= 1
            error = error_of(busy)
            assert error["code"] == "insufficient_memory"
            assert (error["details"]["in_use"], error["details"]["freeable"]) == (1000, 0)
            forced = client.post("/api/v1/models/unload", json={"model": "a", "force": True})
            assert forced.json()["was_loaded"]
            last = [data for name, data in events(stream) if "error" in data][-1]
            assert "was unloaded amid this request" in last["error"]["message"]
        assert load(client, "b", wait=False).status_code == 200


def test_an_estimate_says_beforehand_what_a_load_would_do() -> None:
    script = Script(kv_bytes_per_token=1)
    catalog = FakeCatalog(card("a"), card("b"))
    with serving(container(catalog, script=script, budget=4000)) as (_, client):

        def estimate(model: str, **more: Any) -> dict[str, Any]:
            answer = client.post("/api/v1/estimate", json={"model": model} | more)
            assert answer.status_code == 200
            body: dict[str, Any] = answer.json()
            return body

        first = estimate("a", context_length=512, concurrency=2)
        assert first["need"] == {"weights": 1000, "kv_cache": 1024, "prefill": 0, "total": 2024}
        assert (first["fit"], first["budget"], first["in_use"]) == ("now", 4000, 0)
        assert (first["context_length"], first["concurrency"]) == (512, 2)
        assert first["longest_context"] == 512
        assert "It fits now." in first["text"]
        load(client, "b")
        second = estimate("a", concurrency=5)
        assert (second["fit"], second["evict"]) == ("after_evictions", ["b"])
        assert second["freeable"] == second["in_use"] > 0
        assert estimate("a", concurrency=10)["fit"] == "never"
        for wrong, param in (
            ({"context_length": 513}, "context_length"),
            ({"kv_bits": 5}, "kv_bits"),
        ):
            answer = client.post("/api/v1/estimate", json={"model": "a"} | wrong)
            assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_the_status_is_the_pool_and_who_runs_it(client: httpx.Client) -> None:
    load(client, "b")
    status = client.get("/api/v1/status").json()
    assert (status["memory_budget"], status["memory_used"]) == (2500, 1000)
    assert (status["waiting"], status["closing"]) == (0, False)
    assert status["uptime"] >= 0
    assert status["version"]
    (resident,) = status["residents"]
    known = {"id", "state", "context_length", "pinned", "idle_ttl", "last_used"}
    assert set(resident) == HELD | known


def test_a_context_that_is_set_is_the_one_that_clients_see() -> None:
    models = {"a": {"context_length": 100}}
    with serving(container(FakeCatalog(card("a")), models=models)) as (_, client):
        own = client.get("/api/v1/models/a").json()
        assert (own["context_length"], own["max_context_length"]) == (100, 512)
        openais = client.get("/v1/models/a").json()
        assert (openais["context_length"], openais["max_model_len"]) == (100, 100)


def test_pinned_models_are_loaded_at_start_and_failures_don_t_stop_the_others() -> None:
    catalog = FakeCatalog(card("a"), card("b"), card("c"))
    models = {"missing": {"pinned": True}, "b": {"pinned": True}, "c": {"idle_ttl": 5}}
    with serving(container(catalog, models=models)) as (_, client):
        assert until(lambda: hot(client) == ["b"])
        assert client.get("/api/v1/models/c").json()["idle_ttl"] == 5
        assert client.get("/livez").status_code == 200


def test_every_management_route_asks_for_the_key_and_is_documented() -> None:
    locked = container(FakeCatalog(card("m")), api_key="sesame")
    document = application(locked).openapi()
    schemas = document["components"]["schemas"]
    routes = [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path.startswith("/api/")
    ]
    assert len(routes) == 17
    with serving(locked) as (_, client):
        for path, method, operation in routes:
            url = path.replace("{model_id}", "m").replace("{job_id}", "1")
            assert client.request(method, url, json={}).status_code == 401, path
            assert operation["tags"] == ["management"]
            assert operation["description"]
            assert "422" not in operation["responses"]
            for status, response in operation["responses"].items():
                (schema,) = [content["schema"] for content in response["content"].values()]
                assert schema, (path, status)
                for name in [schema.get("$ref"), *(s["$ref"] for s in schema.get("anyOf", ()))]:
                    assert name is None or name.rpartition("/")[2] in schemas


def test_deletes_and_downloads_can_be_forbidden() -> None:
    closed = container(FakeCatalog(card("m")), allow_pulls=False)
    with serving(closed) as (_, client):
        for method, path in (
            ("DELETE", "/models/m"),
            ("POST", "/pulls"),
            ("POST", "/pulls/1/resume"),
        ):
            answer = client.request(method, f"/api/v1{path}", json={"model": "a/b"})
            assert (answer.status_code, error_of(answer)["code"]) == (403, "not_allowed")
            assert "`allow_pulls`" in error_of(answer)["message"]
        assert client.get("/api/v1/pulls").json() == {"data": []}
        assert client.get("/api/v1/models/m").status_code == 200
