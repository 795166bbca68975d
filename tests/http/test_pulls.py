"""Downloads as jobs, the hub's search and the disk, over a live socket."""

from typing import Any

import httpx
import pytest

from domain.errors import HubFailed, HubFault, ShuttingDown
from domain.models import FoundModel, ModelId, PullPhase, PullProgress
from tests.fakes import FakeCatalog
from tests.http.managed import Hub, card, container, error_of, events, serving
from tests.waiting import until

COMMIT = "0123abcd" * 5
PROGRESS = (
    PullProgress(PullPhase.RESOLVING),
    PullProgress(PullPhase.DOWNLOADING, COMMIT, 250, 1000, 1, 4, 250.0),
    PullProgress(PullPhase.DOWNLOADING, COMMIT, 750, 1000, 3, 4, 250.0),
    PullProgress(PullPhase.VERIFYING, COMMIT, 1000, 1000, 4, 4),
    PullProgress(PullPhase.DONE, COMMIT, 1000, 1000, 4, 4),
)
FOUND = (
    FoundModel(ModelId("org/a"), 900, 9, "2025-01-01T00:00:00Z", 1000, "4-bit"),
    FoundModel(ModelId("org/b"), 90, 1, "2025-01-02T00:00:00Z", gated=True),
)


def pull(client: httpx.Client, model: str = "org/a", **more: Any) -> httpx.Response:
    return client.post("/api/v1/pulls", json={"model": model} | more)


def job(client: httpx.Client, name: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/pulls/{name}")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def ended(client: httpx.Client, name: str) -> dict[str, Any]:
    assert until(lambda: job(client, name)["state"] != "running")
    return job(client, name)


def test_a_download_is_a_job_that_can_be_polled() -> None:
    source = Hub(*PROGRESS, hold_after=2)
    with serving(container(FakeCatalog(), source)) as (_, client):
        answer = pull(client, revision="main")
        started = answer.json()
        assert answer.status_code == 202
        assert (started["state"], started["phase"]) == ("running", "resolving")
        assert (started["revision"], started["commit"]) == ("main", None)
        assert until(lambda: job(client, started["id"])["bytes_done"] > 0)
        running = job(client, started["id"])
        assert (running["bytes_done"], running["bytes_total"]) == (250, 1000)
        assert (running["files_done"], running["files_total"]) == (1, 4)
        assert (running["bytes_per_second"], running["seconds_left"]) == (250, 3)
        assert running["commit"] == COMMIT
        assert pull(client, revision="main").json()["id"] == started["id"]  # it is that one
        source.let_go()
        assert ended(client, started["id"])["state"] == "done"
        (only,) = client.get("/api/v1/pulls").json()["data"]
        assert (only["phase"], only["bytes_done"], only["error"]) == ("done", 1000, None)
        assert source.pulls == [(ModelId("org/a"), "main")]


def test_a_download_can_be_watched_to_its_end() -> None:
    source = Hub(*PROGRESS, hold_after=1)
    with serving(container(FakeCatalog(), source)) as (_, client):
        name = pull(client).json()["id"]
        with client.stream("GET", f"/api/v1/pulls/{name}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            seen = events(answer)
            first = next(seen)
            source.let_go()
            rest = list(seen)
        assert first[0] == "progress"
        assert [name for name, _ in rest] == ["progress"] * 4 + ["done"]
        assert [data["bytes_done"] for _, data in rest] == [250, 750, 1000, 1000, 1000]
        again = client.get(f"/api/v1/pulls/{name}/events")  # of one that has ended
        assert [(name, data["state"]) for name, data in events(again)] == [("done", "done")]


def test_a_stream_without_news_has_a_heartbeat() -> None:
    source = Hub(*PROGRESS, hold_after=1)
    settings: dict[str, Any] = {"first_event_patience": 0.05}
    with serving(container(FakeCatalog(), source, **settings)) as (_, client):
        name = pull(client).json()["id"]
        for path in (f"pulls/{name}/events", "events"):
            with client.stream("GET", f"/api/v1/{path}") as answer:
                assert ("", "waiting") in [
                    data for _, data in zip(range(4), events(answer), strict=False)
                ]


def test_a_download_is_cancelled_and_resumed() -> None:
    source = Hub(*PROGRESS, hold_after=2)
    with serving(container(FakeCatalog(), source)) as (_, client):
        name = pull(client).json()["id"]
        assert until(lambda: job(client, name)["bytes_done"] > 0)
        with client.stream("GET", f"/api/v1/pulls/{name}/events") as answer:
            seen = events(answer)
            next(seen)
            cancelled = client.post(f"/api/v1/pulls/{name}/cancel")
            assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
            assert [name for name, _ in seen] == ["cancelled"]
        assert source.stopped == 1
        assert cancelled.json()["bytes_done"] == 250
        assert client.post(f"/api/v1/pulls/{name}/cancel").json()["state"] == "cancelled"
        resumed = client.post(f"/api/v1/pulls/{name}/resume").json()
        assert (resumed["id"], resumed["state"]) == (name, "running")
        source.let_go()
        assert ended(client, name)["state"] == "done"
        assert client.post(f"/api/v1/pulls/{name}/resume").json()["state"] == "done"


def test_a_download_that_fails_says_why_and_can_be_resumed() -> None:
    source = Hub(*PROGRESS[:2], fault=HubFailed(HubFault.GATED, "Accept its licence."))
    with serving(container(FakeCatalog(), source)) as (_, client):
        name = pull(client).json()["id"]
        failed = ended(client, name)
        assert failed["state"] == "failed"
        assert failed["error"] == {
            "message": "Accept its licence.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "gated",
        }
        (last,) = events(client.get(f"/api/v1/pulls/{name}/events"))
        assert last == ("failed", failed)
        source.fault = None
        client.post(f"/api/v1/pulls/{name}/resume")
        assert ended(client, name)["error"] is None


@pytest.mark.parametrize("name", ["0", "-1", "nope", "%00", "..%2f1", "1e0", "x" * 3000])
@pytest.mark.parametrize("what", ["", "/events", "/cancel", "/resume"])
def test_jobs_that_are_not_there_are_not_found(name: str, what: str) -> None:
    with serving(container(FakeCatalog(), Hub(*PROGRESS))) as (_, client):
        pull(client)
        method = "POST" if what in {"/cancel", "/resume"} else "GET"
        answer = client.request(method, f"/api/v1/pulls/{name}{what}")
        assert answer.status_code == 404
        assert error_of(answer)["code"] in ("job_not_found", None)


STATUSES = {
    "offline": 503,
    "unreachable": 502,
    "unauthorized": 403,
    "gated": 403,
    "missing": 404,
    "renamed": 404,
    "unsuitable": 400,
    "busy": 503,
    "stalled": 504,
    "corrupt": 502,
    "disk_full": 507,
    "unwritable": 500,
}


@pytest.mark.parametrize("fault", HubFault)
def test_each_fault_of_the_hub_has_a_status_of_its_own(fault: HubFault) -> None:
    status = STATUSES[fault]
    source = Hub(fault=HubFailed(fault, "What to do about it."))
    with serving(container(FakeCatalog(), source)) as (_, client):
        answer = client.get("/api/v1/search", params={"q": "x"})
        error = error_of(answer)
        assert (answer.status_code, error["code"]) == (status, fault)
        assert error["message"] == "What to do about it."
        assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")


def test_a_search_says_what_is_here_already() -> None:
    source = Hub(found=FOUND)
    with serving(container(FakeCatalog(card("org/a")), source)) as (_, client):
        found = client.get("/api/v1/search", params={"q": "org/"}).json()["data"]
        assert found[0] == {
            "id": "org/a",
            "downloads": 900,
            "likes": 9,
            "updated": "2025-01-01T00:00:00Z",
            "size_bytes": 1000,
            "quantization": "4-bit",
            "gated": False,
            "cached": True,
        }
        assert (found[1]["size_bytes"], found[1]["gated"], found[1]["cached"]) == (
            None,
            True,
            False,
        )
        assert len(client.get("/api/v1/search?limit=1").json()["data"]) == 1


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"limit": "0"}, "limit", "invalid_value"),
        ({"limit": "101"}, "limit", "invalid_value"),
        ({"limit": "x"}, "limit", "invalid_type"),
        ({"limit": "9" * 5000}, "limit", "invalid_value"),
        ({"q": "a\0b"}, "q", "invalid_value"),
        ({"q": "x" * 201}, "q", "invalid_value"),
    ],
)
def test_bad_searches_are_refused_by_name(params: dict[str, str], param: str, code: str) -> None:
    with serving(container(FakeCatalog())) as (_, client):
        answer = client.get("/api/v1/search", params=params)
        assert answer.status_code == 400
        assert (error_of(answer)["param"], error_of(answer)["code"]) == (param, code)


def test_the_cache_says_what_it_takes() -> None:
    with serving(container(FakeCatalog(card("org/a")))) as (_, client):
        assert client.get("/api/v1/cache").json() == {
            "location": "/models",
            "free_bytes": 10**9,
            "used_bytes": 1000,
            "models": [{"id": "org/a", "bytes_on_disk": 1000, "last_used": 0, "whole": True}],
        }


def test_downloads_end_with_the_server_and_keep_what_has_come() -> None:
    source = Hub(*PROGRESS, hold_after=2)
    running = container(FakeCatalog(), source)
    with serving(running) as (_, client):
        name = pull(client).json()["id"]
        assert until(lambda: job(client, name)["bytes_done"] > 0)
    assert source.stopped == 1
    ended = running.pulls().find(name)
    assert (ended.state, type(ended.error)) == ("failed", ShuttingDown)


def test_what_is_being_downloaded_is_not_deleted() -> None:
    source = Hub(*PROGRESS, hold_after=2)
    with serving(container(FakeCatalog(card("org/a")), source)) as (_, client):
        pull(client, model="org/a")
        answer = client.delete("/api/v1/models/org/a")
        assert (answer.status_code, error_of(answer)["code"]) == (409, "model_being_pulled")
        assert error_of(answer)["param"] == "model"
