"""Chat completions over a socket, read by the official client."""

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.servers import LiveServer

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def ask(client: openai.OpenAI, text: str, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="test/model", messages=messages, **options)


def test_an_answer_is_what_the_client_expects(client: openai.OpenAI) -> None:
    answer = ask(client, "greet")
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "test/model"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "Hello there, dear reader."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 4
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize("text", ["greet", "umlauts", "think", "broken"])
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, text: str) -> None:
    whole = ask(client, text, tools=[WEATHER]).choices[0]
    with client.chat.completions.stream(
        model="test/model", messages=[{"role": "user", "content": text}], tools=[WEATHER]
    ) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.message.content == whole.message.content
    assert streamed.finish_reason == whole.finish_reason


def test_every_chunk_and_answer_is_valid_in_the_clients_own_types(server: LiveServer) -> None:
    for text in ("greet", "weather", "think"):
        body = {
            "model": "test/model",
            "messages": [{"role": "user", "content": text}],
            "tools": [WEATHER],
            "logprobs": True,
            "top_logprobs": 2,
        }
        url = f"{server.url}/v1/chat/completions"
        whole = httpx.post(url, json=body)
        ChatCompletion.model_validate_json(whole.content, strict=True)
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = httpx.post(url, json=body | usage)
        assert streamed.headers["content-type"].startswith("text/event-stream")
        events = streamed.text.split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        for event in events[:-2]:
            ChatCompletionChunk.model_validate_json(event.removeprefix("data: "), strict=True)


def test_the_role_comes_once_and_first_and_the_reason_last(client: openai.OpenAI) -> None:
    chunks = [chunk.choices[0] for chunk in ask(client, "greet", stream=True)]
    assert chunks[0].delta.role == "assistant"
    assert chunks[0].delta.content == ""
    assert all(chunk.delta.role is None for chunk in chunks[1:])
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1].delta.content is None


def test_usage_comes_in_one_more_chunk_when_asked_for(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "greet", stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == ask(client, "greet").usage
    unasked = list(ask(client, "greet", stream=True, stream_options={"include_usage": False}))
    assert all(chunk.choices for chunk in unasked)


def test_tool_calls_arrive_whole_and_in_parts(client: openai.OpenAI) -> None:
    choice = ask(client, "weather", tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    with client.chat.completions.stream(
        model="test/model", messages=[{"role": "user", "content": "two"}], tools=[WEATHER]
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.content is None or message.content == ""
    assert [call.function.name for call in message.tool_calls or ()] == ["get_weather"] * 2


def test_one_call_is_enough_without_parallel_tool_calls(client: openai.OpenAI) -> None:
    choice = ask(client, "two", tools=[WEATHER], parallel_tool_calls=False).choices[0]
    assert len(choice.message.tool_calls) == 1
    assert choice.finish_reason == "tool_calls"


def test_without_tools_a_call_is_text(client: openai.OpenAI) -> None:
    assert "<tool_call>" in ask(client, "weather").choices[0].message.content
    unwanted = ask(client, "weather", tools=[WEATHER], tool_choice="none")
    assert unwanted.choices[0].message.tool_calls is None


def test_thoughts_are_told_apart(client: openai.OpenAI) -> None:
    answer = ask(client, "think")
    assert answer.choices[0].message.reasoning_content == "Hm, let me see."
    assert answer.choices[0].message.content == "Forty-two."
    assert answer.usage.completion_tokens_details.reasoning_tokens == 6
    deltas = [chunk.choices[0].delta for chunk in ask(client, "think", stream=True)]
    thoughts = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(thoughts) == "Hm, let me see."


def test_stop_strings_end_the_answer_and_are_not_shown(client: openai.OpenAI) -> None:
    answer = ask(client, "greet", stop=["dear"])
    assert answer.choices[0].message.content == "Hello there, "
    assert answer.choices[0].finish_reason == "stop"
    straddling = ask(client, "greet", stop="e, d", stream=True)
    parts = [chunk.choices[0].delta.content or "" for chunk in straddling]
    assert "".join(parts) == "Hello ther"


def test_logprobs_cover_the_text(client: openai.OpenAI) -> None:
    choice = ask(client, "umlauts", logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    assert b"".join(bytes(t.bytes) for t in content).decode() == choice.message.content
    assert {len(t.top_logprobs) for t in content} == {3}
    assert ask(client, "umlauts").choices[0].logprobs is None


def test_max_tokens_is_exact(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = ask(client, "greet", **{name: 2})
        assert answer.choices[0].message.content == "Hello there,"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 2


def test_messages_of_every_kind_are_taken(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "hi", "name": "ada"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "18"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "gr"}, {"type": "text", "text": "eet"}],
        },
    ]
    answer = client.chat.completions.create(model="test/model", messages=messages)
    assert answer.choices[0].message.content == "Hello there, dear reader."


def test_null_is_absent_and_fields_of_no_api_are_let_pass(server: LiveServer) -> None:
    nullable = ("temperature", "top_p", "n", "stop", "seed", "logit_bias", "stream", "logprobs")
    nullable += ("stream_options", "top_logprobs", "max_tokens", "max_completion_tokens", "tools")
    body = {"model": "test/model", "messages": [{"role": "user", "content": "greet"}]}
    body |= {name: None for name in nullable}
    body |= {"stop": "", "user": "u", "metadata": {"a": "b"}, "store": True, "whatever": 1}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there, dear reader."


def test_the_default_model_answers_for_requests_that_name_none(server: LiveServer) -> None:
    body = {"messages": [{"role": "user", "content": "greet"}]}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert answer.status_code == 400  # this server has models but no default
    assert answer.json()["error"]["param"] == "model"
    assert answer.json()["error"]["code"] == "missing_required_parameter"


def test_a_refusal_that_is_sent_back_is_read_whatever_stands_beside_it(
    client: openai.OpenAI,
) -> None:
    def prompt_tokens(**answered: Any) -> int:
        messages: Any = [{"role": "assistant", **answered}, {"role": "user", "content": "greet"}]
        answer = client.chat.completions.create(model="test/model", messages=messages)
        assert answer.usage
        return answer.usage.prompt_tokens

    alone = prompt_tokens(content="a b")
    assert prompt_tokens(content="a b", refusal="c d") > alone
    assert prompt_tokens(content=None, refusal="a b") == alone
