"""Models that come and go while others answer, and the streams that say so."""

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from adapters.scripted.engine import Script
from tests.fakes import FakeCatalog
from tests.http.managed import card, container, error_of, events, serving
from tests.waiting import until

WORDS = " ".join(f"word{n}" for n in range(40))


def ask(client: httpx.Client, model: str) -> tuple[list[str], str, float]:
    """The comments and the text of one streamed answer, and when it ended."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "go"}]}
    comments: list[str] = []
    text = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith(": "):
                comments.append(line[2:])
            elif line.startswith("data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                text += delta.get("content", "")
    assert line == ""  # the end of an event, and not amid one
    return comments, text, time.monotonic()


def in_order(items: list[str], *expected: str) -> bool:
    """Whether nothing but `expected` is there, in that order, each once or more; a slow machine
    may also have waited for a token.
    """
    kept = [item for n, item in enumerate(items) if n == 0 or items[n - 1] != item]
    return [item for item in kept if item != "waiting"] == list(expected)


@pytest.mark.parametrize("budget", [2000, 1000])
def test_a_cold_model_comes_without_harm_to_those_who_stream(budget: int) -> None:
    script = Script(reply=WORDS, token_delay=0.02, load_delay=0.4)
    catalog = FakeCatalog(card("org/a"), card("org/b"))
    settings: dict[str, Any] = {"budget": budget, "first_event_patience": 0.05}
    with (
        serving(container(catalog, script=script, **settings)) as (server, client),
        ThreadPoolExecutor(8) as pool,
    ):
        client.post("/api/v1/models/load", json={"model": "org/a"})
        first = [pool.submit(ask, client, "org/a") for _ in range(4)]
        assert until(lambda: server.snapshot.leases == 4)
        b = pool.submit(ask, client, "org/b")
        assert until(lambda: server.snapshot.waiting == 1 or len(server.snapshot.residents) == 2)
        late = pool.submit(ask, client, "org/a")
        answers = [stream.result(30) for stream in first]
        assert [text for _, text, _ in answers] == [WORDS] * 4
        comments, text, b_ended = b.result(30)
        assert text == WORDS
        late_comments, late_text, late_ended = late.result(30)
        assert late_text == WORDS
        last_of_a = max(ended for _, _, ended in answers)
        if budget == 2000:  # room for both: they answer side by side
            assert in_order(comments, "loading org/b")
            assert in_order(late_comments)
        else:  # first come, first served: b before the later request for a
            assert in_order(comments, "waiting for memory to load org/b", "loading org/b")
            assert last_of_a < b_ended < late_ended
            assert "waiting for memory to load org/a" in late_comments


def test_a_full_batch_is_waited_for_by_name() -> None:
    script = Script(reply=WORDS, token_delay=0.01, slots=1)
    settings: dict[str, Any] = {"first_event_patience": 0.05}
    with (
        serving(container(FakeCatalog(card("org/a")), script=script, **settings)) as (_, client),
        ThreadPoolExecutor(2) as pool,
    ):
        both = [pool.submit(ask, client, "org/a") for _ in range(2)]
        first, second = sorted((stream.result(30) for stream in both), key=lambda answer: answer[2])
        assert "waiting for a place in the batch of org/a" in second[0]
        assert first[1] == second[1] == WORDS


def test_the_official_client_reads_over_the_comments() -> None:
    script = Script(reply="Hello there.", load_delay=0.3)
    settings: dict[str, Any] = {"first_event_patience": 0.05}
    with serving(container(FakeCatalog(card("org/a")), script=script, **settings)) as (server, _):
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
        chunks = client.chat.completions.create(
            model="org/a", messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello there."
        raw = httpx.post(
            f"{server.url}/v1/completions",
            json={"model": "org/a", "prompt": "x", "stream": True},
        )
        lines = [line for line in raw.text.splitlines() if line]
        assert all(line.startswith((": ", "data: {", "data: [DONE]")) for line in lines)


def test_a_model_whose_name_is_not_ascii_breaks_no_stream() -> None:
    settings: dict[str, Any] = {"first_event_patience": 0.05}
    script = Script(reply="Hi.", load_delay=0.2)
    with serving(container(FakeCatalog(card("größe/ñ")), script=script, **settings)) as (_, client):
        comments, text, _ = ask(client, "größe/ñ")
    assert (set(comments) - {"waiting"}, text) == ({"loading gr??e/?"}, "Hi.")


def watched(client: httpx.Client, count: int, act: Callable[[], object]) -> list[tuple[str, Any]]:
    """A snapshot, and then so many events that follow from what `act` does."""
    with client.stream("GET", "/api/v1/events") as answer, ThreadPoolExecutor(1) as pool:
        seen = (event for event in events(answer) if event[0])
        first = next(seen)
        doing: Future[object] = pool.submit(act)
        rest = [event for _, event in zip(range(count), seen, strict=False)]
        doing.result(10)
    return [first, *rest]


def test_the_pools_changes_can_be_watched() -> None:
    with serving(container(FakeCatalog(card("a"), card("b")), budget=1500)) as (_, client):

        def swap() -> None:
            client.post("/api/v1/models/load", json={"model": "a", "pin": True})
            client.post("/api/v1/models/pin", json={"model": "a", "pinned": False})
            client.post("/api/v1/models/load", json={"model": "b"})
            client.post("/api/v1/models/unload", json={"model": "b"})

        (kind, snapshot), *changes = watched(client, 10, swap)
    assert (kind, snapshot["residents"], snapshot["memory_budget"]) == ("snapshot", [], 1500)
    assert [(kind, data["model"]) for kind, data in changes] == [
        ("loading", "a"),
        ("loaded", "a"),
        ("pinned", "a"),
        ("unpinned", "a"),
        ("unloading", "a"),
        ("unloaded", "a"),
        ("loading", "b"),
        ("loaded", "b"),
        ("unloading", "b"),
        ("unloaded", "b"),
    ]
    assert all(kind == data["event"] for kind, data in changes)
    assert all(data["memory_used"] <= 1500 for _, data in changes)
    assert changes[0][1]["reason"] == "it was asked for"
    assert changes[4][1]["reason"] == "to make room for `b`"
    assert changes[-1][1]["memory_used"] == 0


def test_a_load_that_fails_is_an_event() -> None:
    script = Script(fail_load=True)
    with serving(container(FakeCatalog(card("a")), script=script)) as (_, client):

        def load() -> None:
            assert error_of(client.post("/api/v1/models/load", json={"model": "a"}))

        _, *changes = watched(client, 2, load)
    assert [kind for kind, _ in changes] == ["loading", "load_failed"]
    assert "failed to load" in changes[1][1]["reason"]


def test_an_idle_model_leaves_after_its_time_and_a_pinned_one_stays() -> None:
    models = {"kept": {"pinned": True}, "busy": {"idle_ttl": 60}}
    catalog = FakeCatalog(card("a"), card("kept"), card("busy"))
    with serving(container(catalog, idle_ttl=0.6, models=models)) as (_, client):
        for model in ("kept", "busy", "a"):
            client.post("/api/v1/models/load", json={"model": model})

        def hot() -> set[str]:
            status = client.get("/api/v1/status").json()
            return {resident["id"] for resident in status["residents"]}

        assert hot() == {"a", "kept", "busy"}
        assert until(lambda: hot() == {"kept", "busy"}, 3)
        time.sleep(0.7)
        assert hot() == {"kept", "busy"}
