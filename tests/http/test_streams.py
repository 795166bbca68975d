"""Whatever is asked, the stream adds up to the answer; whatever the stops, none is shown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from adapters.settings import Settings
from tests.http.conftest import REPLIES
from tests.servers import live_server, scripted_settings

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}


@pytest.fixture(scope="module", params=["scripted", "mlx"])
def wire(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[httpx.Client]:
    """One connection to a server over either engine; its model is `tiny`."""
    if request.param == "scripted":
        root = tmp_path_factory.mktemp("scripted")
        container = Container(settings=scripted_settings(root, "tiny"))
        container.loader.override(ScriptedLoader(Script(replies=REPLIES)))
    else:
        container = Container(settings=Settings(available_models=(str(tiny_model),)))
    with (
        live_server(container) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


texts = st.sampled_from([*REPLIES, "one two three four five six", "x"])
stops = st.lists(st.text("aeiou t.\n", min_size=1, max_size=3), max_size=4)
options = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 25), "temperature": st.just(0)},
    optional={
        "stop": stops,
        "n": st.integers(1, 3),
        "seed": st.integers(0, 100),
        "presence_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.sampled_from(["65", "97"]), st.integers(-100, 100)),
    },
)
chat_options = st.fixed_dictionaries(
    {},
    optional={
        "logprobs": st.just(True),
        "tools": st.just([WEATHER]),
        "parallel_tool_calls": st.booleans(),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    },
)
few = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def chunks_of(answer: httpx.Response) -> list[dict[str, Any]]:
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def joined(choices: list[dict[str, Any]], name: str) -> str:
    return "".join(choice["delta"].get(name) or "" for choice in choices)


def logprobs_of(choices: list[dict[str, Any]]) -> list[Any]:
    present = [choice["logprobs"] for choice in choices if choice.get("logprobs")]
    return [entry for logprobs in present for entry in logprobs["content"]]


@few
@given(text=texts, asked=options, more=chat_options)
def test_a_chat_stream_adds_up_to_the_answer(
    wire: httpx.Client, text: str, asked: dict[str, Any], more: dict[str, Any]
) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}]} | asked | more
    whole = wire.post("/v1/chat/completions", json=body).json()
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = chunks_of(wire.post("/v1/chat/completions", json=body | streaming))
    for usage in (chunks[-1]["usage"], whole["usage"]):
        del usage["prompt_tokens_details"]  # the second time, the prompt is known
    assert chunks[-1]["usage"] == whole["usage"]
    for expected in whole["choices"]:
        index, message = expected["index"], expected["message"]
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert joined(parts, "content") == (message["content"] or "")
        assert joined(parts, "reasoning_content") == message.get("reasoning_content", "")
        assert parts[-1]["finish_reason"] == expected["finish_reason"]
        assert logprobs_of(parts) == (expected["logprobs"] or {"content": []})["content"]
        calls = [call for part in parts for call in part["delta"].get("tool_calls", [])]
        names = [call["function"]["name"] for call in calls if "name" in call["function"]]
        whole_calls = message.get("tool_calls", [])
        assert names == [call["function"]["name"] for call in whole_calls]
        arguments = [call["function"]["arguments"] for call in calls]
        assert "".join(arguments) == "".join(c["function"]["arguments"] for c in whole_calls)


@few
@given(text=texts, asked=options, logprobs=st.none() | st.integers(0, 3), echo=st.booleans())
def test_a_completion_stream_adds_up_to_the_answer(
    wire: httpx.Client, text: str, asked: dict[str, Any], logprobs: int | None, echo: bool
) -> None:
    body = {"model": "tiny", "prompt": [text, "x y"], "logprobs": logprobs, "echo": echo} | asked
    whole = wire.post("/v1/completions", json=body).json()
    chunks = chunks_of(wire.post("/v1/completions", json=body | {"stream": True}))
    for expected in whole["choices"]:
        parts = [c for k in chunks for c in k["choices"] if c["index"] == expected["index"]]
        assert "".join(part["text"] for part in parts) == expected["text"]
        assert parts[-1]["finish_reason"] == expected["finish_reason"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            streamed = [e for p in parts for e in (p["logprobs"] or {name: []})[name]]
            assert streamed == (expected["logprobs"] or {name: []})[name]


@few
@given(text=texts, stop=stops)
def test_no_stop_is_shown_and_nothing_before_it_is_lost(
    wire: httpx.Client, text: str, stop: list[str]
) -> None:
    body = {"model": "tiny", "prompt": text, "max_tokens": 40, "temperature": 0}
    free = wire.post("/v1/completions", json=body).json()["choices"][0]
    cut = wire.post("/v1/completions", json=body | {"stop": stop}).json()["choices"][0]
    hits = [(at + len(s), at) for s in stop if (at := free["text"].find(s)) >= 0]
    expected = free["text"][: min(hits)[1]] if hits else free["text"]
    assert cut["text"] == expected
    assert cut["finish_reason"] == ("stop" if hits else free["finish_reason"])
