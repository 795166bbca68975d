"""Replies out of what arrived, with exact times."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bench.reply import Exchange, Failure, Reply, understand
from tests.adapters.bench.server import ROLE, event, piece

LAST = {"choices": [{"delta": {}, "finish_reason": "length"}]}
USAGE: dict[str, Any] = {
    "choices": [],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 16},
    },
}


def reply(*reads: tuple[float, bytes], status: int = 200, kind: str = "text/event-stream") -> Reply:
    return understand(
        Exchange(sent=1.0, ended=9.0, status=status, content_type=kind, reads=list(reads))
    )


def test_times_and_tokens() -> None:
    said = reply(
        (2.0, event(ROLE)),
        (3.0, event(piece("a b"))),
        (4.0, event(piece("c")) + event(piece("d"))),  # these came at one time
        (5.0, event(piece("", reasoning_content="hm"))),
        (6.0, event(piece("")) + event(LAST) + event(USAGE) + b"data: [DONE]\n\n"),
    )
    assert said == Reply(
        sent=1.0,
        ended=9.0,
        arrivals=(3.0, 4.0, 5.0),
        chunks=4,
        text="a bcd",
        prompt_tokens=30,
        output_tokens=7,
        cached_tokens=16,
        counted=True,
    )


def test_without_usage_a_chunk_is_a_token() -> None:
    said = reply((2.0, event(piece("a"))), (3.0, event(piece("b"))), (4.0, event(LAST)))
    assert (said.output_tokens, said.prompt_tokens, said.counted) == (2, 0, False)


def test_usage_in_every_chunk() -> None:
    """Some servers count on; others send null until the end."""
    first = piece("a") | {"usage": None}
    second = piece("b") | {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    third = LAST | {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    said = reply(*[(2.0, event(one)) for one in (first, second, third)])
    assert (said.prompt_tokens, said.output_tokens, said.cached_tokens) == (3, 2, 0)


def test_plain_completions() -> None:
    said = reply(
        (2.0, event({"choices": [{"text": "a"}]})),
        (3.0, event({"choices": [{"text": "b", "finish_reason": "stop"}]})),
    )
    assert (said.text, said.arrivals) == ("ab", (2.0, 3.0))


@pytest.mark.parametrize(
    ("said", "kind", "detail"),
    [
        (reply((2.0, b'{"error": {"message": "No\\nway."}}'), status=400), "http 400", "No way."),
        (reply((2.0, b"<html>"), status=502), "http 502", "<html>"),
        (reply((2.0, event({"error": "out of memory"}))), "error event", "out of memory"),
        (reply((2.0, event(piece("a")))), "cut off", "no last event"),
        (reply((2.0, b"{}"), kind="application/json; charset=utf-8"), "not a stream", "{}"),
    ],
)
def test_failures(said: Reply, kind: str, detail: str) -> None:
    assert said.failure == Failure(kind, detail)
    assert (said.output_tokens, said.arrivals) == (0, ())


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "usage", "error", "content", "prompt_tokens"]),
            inner,
            max_size=4,
        )
    ),
)


@given(json_values)
def test_nonsense_is_a_failure_and_not_a_crash(value: object) -> None:
    said = reply((2.0, f"data: {json.dumps(value)}\n\n".encode()))
    assert said.failure


def test_json_too_deep() -> None:
    assert reply((2.0, b"data: " + b"[" * 100_000 + b"\n\n")).failure
