"""The official Python client, sync and async, and the raw JSON in its own strict types."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import openai
import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, Field

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from tests.clients.shared import (
    ADD,
    ANSWER,
    MODEL,
    OVERFLOW,
    QUESTION,
    THINKING,
    TOO_LONG,
    TOOLS,
    WEATHER,
    WEATHER_QUESTION,
    Guest,
    user,
)
from tests.servers import LiveServer, live_server, scripted_settings

# What OpenAI's published schema marks as required (openai-openapi 2.3.0).
CHAT = ("id", "object", "created", "model", "choices")
CHAT_CHOICE = ("index", "message", "finish_reason", "logprobs")
MESSAGE = ("role", "content", "refusal")
TOOL_CALL = ("id", "type", "function")
FUNCTION = ("name", "arguments")
LOGPROBS = ("content", "refusal")
TOKEN = ("token", "logprob", "bytes", "top_logprobs")
TOP_TOKEN = ("token", "logprob", "bytes")
CHUNK = ("id", "object", "created", "model", "choices")
CHUNK_CHOICE = ("index", "delta", "finish_reason")
COMPLETION = ("id", "object", "created", "model", "choices")
COMPLETION_CHOICE = ("index", "text", "logprobs", "finish_reason")
USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")
MODELS = ("object", "data")
MODEL_FIELDS = ("id", "object", "created", "owned_by")
ERROR = ("type", "message", "param", "code")


class Booking(BaseModel):
    """References, a choice of types, an enumeration and a number."""

    model_config = ConfigDict(extra="forbid")

    host: Guest
    partner: Guest | None
    paid: bool
    discount: Annotated[float, Field(ge=0, le=1)]


class GetWeather(BaseModel):
    """The arguments of get_weather."""

    model_config = ConfigDict(extra="forbid")

    city: Annotated[str, Field(max_length=20)]


STRICT_WEATHER = openai.pydantic_function_tool(GetWeather, name="get_weather")


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="x", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, *messages: Any, **options: Any) -> Any:
    turns = [user(message) if isinstance(message, str) else message for message in messages]
    return client.chat.completions.create(
        model=MODEL, messages=turns, **({"temperature": 0, "max_tokens": 200} | options)
    )


def arguments(call: Any) -> Any:
    return json.loads(call.function.arguments)


def assert_holds(body: Any, fields: tuple[str, ...]) -> None:
    assert [name for name in fields if name not in body] == []


# Chat


def test_a_question_is_answered(client: openai.OpenAI) -> None:
    answer = ask(client, QUESTION)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    chunks = list(ask(client, QUESTION, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 3


def test_the_stream_helper_puts_the_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=[user(QUESTION)],
        temperature=0,
        stream_options={"include_usage": True},
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert text == final.choices[0].message.content == ANSWER
    assert final.choices[0].message.role == "assistant"
    assert final.usage == ask(client, QUESTION).usage


async def test_the_async_client_asks_and_streams_at_once(
    async_client: openai.AsyncOpenAI,
) -> None:
    async def whole() -> str | None:
        answer = await async_client.chat.completions.create(
            model=MODEL, messages=[user(QUESTION)], temperature=0
        )
        return answer.choices[0].message.content

    async def streamed() -> str | None:
        async with async_client.chat.completions.stream(
            model=MODEL, messages=[user(QUESTION)], temperature=0
        ) as stream:
            return (await stream.get_final_completion()).choices[0].message.content

    assert await asyncio.gather(whole(), streamed(), whole()) == [ANSWER] * 3


def test_a_stream_may_be_left_early(client: openai.OpenAI) -> None:
    with ask(client, QUESTION, stream=True) as stream:
        next(iter(stream))
    assert ask(client, QUESTION).choices[0].message.content == ANSWER


def test_the_limit_of_tokens_is_exact(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[user(QUESTION)], max_completion_tokens=3, temperature=0
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_a_stop_string_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    choice = ask(client, QUESTION, stop=["machine", "never"]).choices[0]
    assert choice.message.content == ANSWER.split("machine", maxsplit=1)[0]
    assert choice.finish_reason == "stop"


def test_list_content_and_the_developer_role_are_taken(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "MLX?"}]
    developer = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    assert ask(client, developer, user(QUESTION)).choices[0].message.content
    assert ask(client, {"role": "user", "content": parts}).choices[0].message.content == ANSWER


def test_a_seed_repeats_a_warm_answer(client: openai.OpenAI) -> None:
    texts = [
        ask(client, QUESTION, temperature=1.5, seed=7, max_tokens=20).choices[0].message.content
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_come_apart_from_the_answer(client: openai.OpenAI, field: str) -> None:
    answer = ask(client, QUESTION, extra_body=THINKING)
    thoughts = getattr(answer.choices[0].message, field)
    assert thoughts
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    chunks = list(ask(client, QUESTION, extra_body=THINKING, stream=True))
    assert "".join(getattr(c.choices[0].delta, field, "") for c in chunks) == thoughts


# Logprobs


def test_the_bytes_of_the_logprobs_are_the_answer(client: openai.OpenAI) -> None:
    choice = ask(client, QUESTION, logprobs=True, top_logprobs=2).choices[0]
    entries = choice.logprobs.content
    joined = b"".join(bytes(entry.bytes) for entry in entries)
    assert joined.decode() == choice.message.content == ANSWER
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 2
        assert entry.top_logprobs[0].token == entry.token  # greedy
    assert ask(client, QUESTION, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    assert ask(client, QUESTION).choices[0].logprobs is None


def test_streamed_logprobs_are_those_of_the_whole_answer(client: openai.OpenAI) -> None:
    whole = ask(client, QUESTION, logprobs=True).choices[0].logprobs.content
    streamed = [
        entry
        for chunk in ask(client, QUESTION, logprobs=True, stream=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in whole]
    for one, other in zip(streamed, whole, strict=True):
        assert math.isclose(one.logprob, other.logprob, abs_tol=0.01)


# Several choices


def test_several_choices_have_randomness_of_their_own(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"temperature": 2, "seed": 1, "max_tokens": 12}
    answer = ask(client, QUESTION, n=8, **options)
    assert [choice.index for choice in answer.choices] == list(range(8))
    assert len({choice.message.content for choice in answer.choices}) > 3
    assert answer.usage.prompt_tokens == ask(client, QUESTION, **options).usage.prompt_tokens
    assert 8 < answer.usage.completion_tokens <= 8 * 12


def test_streamed_choices_open_in_order_and_end_each_for_itself(client: openai.OpenAI) -> None:
    chunks = list(ask(client, QUESTION, n=3, stream=True, stream_options={"include_usage": True}))
    *chunks, usage = chunks
    assert usage.choices == []
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [c.index for c in choices if c.delta.role] == [0, 1, 2]
    for index in range(3):
        own = [choice for choice in choices if choice.index == index]
        assert own[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in own) == ANSWER
        assert [c.finish_reason for c in own] == [None] * (len(own) - 1) + ["stop"]
    alone = ask(client, QUESTION).usage
    assert usage.usage.prompt_tokens == alone.prompt_tokens
    assert usage.usage.completion_tokens == 3 * alone.completion_tokens


def test_the_stream_helper_takes_several_choices(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=[user(QUESTION)], temperature=0, n=3
    ) as stream:
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [ANSWER] * 3


# Tools


@pytest.mark.parametrize(
    ("question", "name", "expected"),
    [
        (WEATHER_QUESTION, "get_weather", {"city": "Oslo"}),
        ("What time is it in Nairobi?", "get_time", {"timezone": "Nairobi"}),
        ("Add 1234 and 77", "add", {"a": 1234, "b": 77}),
    ],
)
def test_the_model_calls_the_tool_that_fits(
    client: openai.OpenAI, question: str, name: str, expected: dict[str, Any]
) -> None:
    choice = ask(client, question, tools=TOOLS, tool_choice="auto").choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, arguments(call)) == ("function", name, expected)


def test_a_streamed_call_is_put_together_by_the_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=[user(WEATHER_QUESTION)], tools=TOOLS, temperature=0
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or ()
    assert call.function.name == "get_weather"
    assert arguments(call) == {"city": "Oslo"}
    assert [event.arguments for event in done] == [call.function.arguments]


def test_the_parts_of_a_streamed_call_name_it_once(client: openai.OpenAI) -> None:
    chunks = ask(client, WEATHER_QUESTION, tools=TOOLS, stream=True)
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
    assert {part.index for part in parts} == {0}
    assert [bool(part.id) for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [part.function.name for part in parts] == ["get_weather"] + [None] * (len(parts) - 1)
    assert json.loads("".join(part.function.arguments or "" for part in parts)) == {"city": "Oslo"}


def test_a_tool_result_becomes_an_answer(client: openai.OpenAI) -> None:
    message = ask(client, WEATHER_QUESTION, tools=TOOLS).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "7 degrees"}
    choice = ask(client, WEATHER_QUESTION, message, result, tools=TOOLS).choices[0]
    assert choice.finish_reason == "stop"
    assert "7 degrees" in choice.message.content


@pytest.mark.parametrize("question", [WEATHER_QUESTION, QUESTION])
@pytest.mark.parametrize("stream", [False, True])
def test_a_required_tool_is_called(client: openai.OpenAI, question: str, stream: bool) -> None:
    options: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required"}
    options |= {"temperature": 0, "max_tokens": 300}
    if stream:
        with client.chat.completions.stream(
            model=MODEL, messages=[user(question)], **options
        ) as events:
            choice: Any = events.get_final_completion().choices[0]
    else:
        choice = ask(client, question, **options).choices[0]
    assert choice.finish_reason == "tool_calls"
    names = {spec["function"]["name"]: spec["function"]["parameters"] for spec in TOOLS}
    for call in choice.message.tool_calls:
        assert set(arguments(call)) == set(names[call.function.name]["required"])
    ids = [call.id for call in choice.message.tool_calls]
    assert len(set(ids)) == len(ids) > 0


@pytest.mark.parametrize("question", ["Add 2 and 3", WEATHER_QUESTION, "Hello"])
def test_a_named_tool_is_called_whatever_is_asked(client: openai.OpenAI, question: str) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    choice = ask(client, question, tools=TOOLS, tool_choice=named).choices[0]
    assert choice.finish_reason in ("stop", "tool_calls")
    assert choice.message.tool_calls
    for call in choice.message.tool_calls:
        assert call.function.name == "add"
        numbers = arguments(call)
        assert set(numbers) == {"a", "b"}
        assert all(isinstance(number, int) and 0 <= number < 10_000 for number in numbers.values())


def test_only_the_allowed_tools_are_called(client: openai.OpenAI) -> None:
    add = {"type": "function", "function": {"name": "add"}}
    allowed = {"mode": "required", "tools": [add]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    message = ask(client, WEATHER_QUESTION, tools=TOOLS, tool_choice=choice).choices[0].message
    assert {call.function.name for call in message.tool_calls} == {"add"}


def test_a_tool_without_parameters_is_called_without_arguments(client: openai.OpenAI) -> None:
    ping = {"type": "function", "function": {"name": "ping"}}
    message = ask(client, "Hello", tools=[ping], tool_choice="required").choices[0].message
    assert [arguments(call) for call in message.tool_calls] == [{}]


def test_no_tool_is_called_when_none_may_be(client: openai.OpenAI) -> None:
    choice = ask(client, WEATHER_QUESTION, tools=TOOLS, tool_choice="none").choices[0]
    assert choice.message.tool_calls is None
    assert choice.message.content
    assert choice.finish_reason == "stop"


def test_one_required_call_at_most_without_parallel_tool_calls(client: openai.OpenAI) -> None:
    choice = ask(
        client, WEATHER_QUESTION, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
    ).choices[0]
    assert len(choice.message.tool_calls) == 1


# Structured output


@pytest.mark.parametrize("question", [QUESTION, "Hello", "Add 2 and 3"])
def test_an_answer_is_parsed_into_a_pydantic_model(client: openai.OpenAI, question: str) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=[user(question)], response_format=Guest, temperature=0, max_tokens=200
    )
    message = answer.choices[0].message
    assert isinstance(message.parsed, Guest)
    assert message.content is not None
    assert Guest.model_validate_json(message.content) == message.parsed
    assert answer.choices[0].finish_reason == "stop"


def test_a_nested_model_is_parsed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[user(QUESTION)],
        response_format=Booking,
        temperature=0,
        max_tokens=400,
    )
    assert isinstance(answer.choices[0].message.parsed, Booking)


def test_thoughts_come_before_an_answer_that_follows_a_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[user(QUESTION)],
        response_format=Guest,
        extra_body=THINKING,
        temperature=0,
        max_tokens=300,
    )
    message: Any = answer.choices[0].message
    assert isinstance(message.parsed, Guest)
    assert message.reasoning_content


def test_a_warm_answer_is_parsed_as_well(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[user(QUESTION)],
        response_format=Guest,
        temperature=1.5,
        n=4,
        max_tokens=300,
    )
    assert [type(choice.message.parsed) for choice in answer.choices] == [Guest] * 4


async def test_a_streamed_answer_is_parsed(async_client: openai.AsyncOpenAI) -> None:
    async with async_client.chat.completions.stream(
        model=MODEL, messages=[user(QUESTION)], response_format=Guest, temperature=0, max_tokens=200
    ) as stream:
        final = await stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Guest)


def test_keys_come_in_the_order_of_the_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=[user(QUESTION)], response_format=Guest, temperature=0, max_tokens=200
    )
    assert list(json.loads(answer.choices[0].message.content or "")) == list(Guest.model_fields)


def test_the_client_says_when_the_limit_cut_the_json_off(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL, messages=[user(QUESTION)], response_format=Guest, max_tokens=3
        )


def test_a_json_object_is_an_object(client: openai.OpenAI) -> None:
    choice = ask(
        client, "Answer in JSON.", response_format={"type": "json_object"}, max_tokens=400
    ).choices[0]
    if choice.finish_reason == "stop":  # a tiny model may ramble
        assert isinstance(json.loads(choice.message.content), dict)
    assert choice.message.content.lstrip().startswith("{")


def test_the_arguments_of_a_strict_tool_are_parsed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[user(WEATHER_QUESTION)],
        tools=[STRICT_WEATHER],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_text_is_a_response_format(client: openai.OpenAI) -> None:
    answer = ask(client, QUESTION, response_format={"type": "text"})
    assert answer.choices[0].message.content == ANSWER


def test_a_schema_binds_the_answer_when_tools_are_offered_too(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[user(QUESTION)],
        response_format=Guest,
        tools=[STRICT_WEATHER],
        temperature=0,
        max_tokens=300,
    )
    message = answer.choices[0].message
    assert message.tool_calls or isinstance(message.parsed, Guest)


# Completions


def complete(client: openai.OpenAI, prompt: Any, **options: Any) -> Any:
    return client.completions.create(
        model=MODEL, prompt=prompt, **({"temperature": 0, "max_tokens": 12} | options)
    )


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    answer = complete(client, "Portico is")
    assert answer.choices[0].text
    assert answer.usage.completion_tokens <= 12
    chunks = list(complete(client, "Portico is", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text


def test_a_list_of_prompts_is_answered_in_order(client: openai.OpenAI) -> None:
    prompts = ["Portico is", "MLX is"]
    alone = [complete(client, prompt) for prompt in prompts]
    answer = complete(client, prompts)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [c.text for c in answer.choices] == [one.choices[0].text for one in alone]
    assert answer.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    assert answer.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)


def test_lists_of_token_ids_are_prompts_too(client: openai.OpenAI) -> None:
    ids = [[5, 6, 7], [8, 9, 10]]
    alone = [complete(client, prompt).choices[0].text for prompt in ids]
    assert [choice.text for choice in complete(client, ids).choices] == alone


def test_choices_of_several_prompts_are_counted_through(client: openai.OpenAI) -> None:
    answer = complete(client, ["Portico is", "MLX is"], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]


def test_streamed_prompts_are_told_apart_by_index(client: openai.OpenAI) -> None:
    prompts = ["Portico is", "MLX is"]
    whole = complete(client, prompts)
    texts = ["", ""]
    for chunk in complete(client, prompts, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]


def test_the_prompt_is_echoed_with_its_logprobs(client: openai.OpenAI) -> None:
    choice = complete(client, "Portico is", echo=True, logprobs=1).choices[0]
    assert choice.text == "Portico is" + complete(client, "Portico is").choices[0].text
    logprobs = choice.logprobs
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset[0] == 0
    lengths = {len(logprobs.tokens), len(logprobs.token_logprobs), len(logprobs.text_offset)}
    assert lengths == {len(logprobs.top_logprobs)}


def test_the_best_of_several_is_returned(client: openai.OpenAI) -> None:
    answer = complete(client, "Portico is", best_of=3, n=1, temperature=1)
    assert len(answer.choices) == 1


# Errors


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"temperature": 9}, "temperature", None),
        ({"messages": []}, "messages", "empty_array"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"tool_choice": "auto"}, "tool_choice", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"n": 0}, "n", None),
        ({"top_logprobs": 3}, "top_logprobs", None),
        ({"logit_bias": {"99999999": 1}}, "logit_bias", None),
    ],
)
def test_a_bad_request_names_its_parameter(
    client: openai.OpenAI, options: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**({"model": MODEL, "messages": [user(QUESTION)]} | options))
    error = caught.value
    assert (error.status_code, error.param, error.type) == (400, param, "invalid_request_error")
    assert code is None or error.code == code
    assert error.request_id


def test_a_schema_that_is_none_is_a_bad_request(client: openai.OpenAI) -> None:
    schema = {"name": "x", "schema": {"type": "nonsense"}, "strict": True}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, QUESTION, response_format={"type": "json_schema", "json_schema": schema})
    assert (caught.value.param or "").startswith("response_format")


def test_a_named_tool_that_was_not_offered_is_a_bad_request(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "nope"}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, QUESTION, tools=[WEATHER, ADD], tool_choice=named)
    assert (caught.value.param or "").startswith("tool_choice")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_a_bad_request(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match=OVERFLOW) as caught:
        ask(client, TOO_LONG, stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_what_is_not_there_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no/such", messages=[user(QUESTION)])
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")
    with pytest.raises(openai.NotFoundError):
        client.post("/no/such/path", body={}, cast_to=object)


async def test_the_async_client_raises_the_same(async_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await async_client.chat.completions.create(model=MODEL, messages=[])
    with pytest.raises(openai.NotFoundError):
        await async_client.models.retrieve("no/such")


@pytest.fixture
def breaking(tmp_path: Path) -> Iterator[LiveServer]:
    container = Container(settings=scripted_settings(tmp_path / "models", "test/model"))
    container.loader.override(ScriptedLoader(Script(reply="a b c d", fail_after=2)))
    with live_server(container) as server:
        yield server


def test_a_server_that_breaks_is_an_error_of_the_server(breaking: LiveServer) -> None:
    url = f"{breaking.url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        messages = [user("x")]
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="test/model", messages=messages)
        stream = client.chat.completions.create(model="test/model", messages=messages, stream=True)
        with pytest.raises(openai.APIError):
            list(stream)


def test_a_wrong_key_is_an_authentication_error(tmp_path: Path) -> None:
    settings = scripted_settings(tmp_path / "models", "test/model", api_key="secret")
    container = Container(settings=settings)
    container.loader.override(ScriptedLoader(Script(reply="hi")))
    with live_server(container) as server:
        url = f"{server.url}/v1"
        with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.models.list()
            assert caught.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["test/model"]


# Models


def test_models_are_listed_and_retrieved_with_a_slash_in_their_name(client: openai.OpenAI) -> None:
    (listed,) = client.models.list()
    assert listed.id == MODEL
    assert (listed.object, type(listed.created)) == ("model", int)
    assert client.models.retrieve(MODEL).id == MODEL
    raw: Any = client.get(f"/models/{MODEL}", cast_to=object)
    assert raw["id"] == MODEL


# Raw JSON


def chat_bodies() -> list[Any]:
    base = {"model": MODEL, "temperature": 0, "max_tokens": 120}
    guest = {"name": "guest", "schema": Guest.model_json_schema(), "strict": True}
    schema = {"type": "json_schema", "json_schema": guest}
    return [
        pytest.param(base | {"messages": [user(QUESTION)]}, id="text"),
        pytest.param(base | {"messages": [user(QUESTION)], "max_tokens": 2}, id="length"),
        pytest.param(
            base | {"messages": [user(QUESTION)], "logprobs": True, "top_logprobs": 2},
            id="logprobs",
        ),
        pytest.param(base | THINKING | {"messages": [user(QUESTION)]}, id="thinking"),
        pytest.param(base | {"messages": [user(WEATHER_QUESTION)], "tools": TOOLS}, id="tools"),
        pytest.param(
            base | {"messages": [user("Hello")], "tools": TOOLS, "tool_choice": "required"},
            id="required",
        ),
        pytest.param(base | {"messages": [user(QUESTION)], "n": 3}, id="several"),
        pytest.param(base | {"messages": [user(QUESTION)], "response_format": schema}, id="schema"),
    ]


def events_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") for event in events)
    return [event.removeprefix("data: ") for event in events]


@pytest.mark.parametrize("body", chat_bodies())
def test_a_raw_answer_is_valid_and_has_every_required_field(
    base_url: str, body: dict[str, Any]
) -> None:
    answer = httpx.post(f"{base_url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    ChatCompletion.model_validate_json(answer.content, strict=True)
    raw = answer.json()
    assert_holds(raw, (*CHAT, "usage"))
    assert_holds(raw["usage"], USAGE)
    assert isinstance(raw["created"], int)
    for choice in raw["choices"]:
        assert_holds(choice, CHAT_CHOICE)
        assert_holds(choice["message"], MESSAGE)
        assert choice["message"].get("tool_calls") != []
        for call in choice["message"].get("tool_calls", []):
            assert_holds(call, TOOL_CALL)
            assert_holds(call["function"], FUNCTION)
        assert_scores(choice["logprobs"], asked="logprobs" in body)


@pytest.mark.parametrize("body", chat_bodies())
def test_every_raw_chunk_is_valid_and_has_every_required_field(
    base_url: str, body: dict[str, Any]
) -> None:
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    events = events_of(httpx.post(f"{base_url}/chat/completions", json=streamed, timeout=60))
    for event in events:
        ChatCompletionChunk.model_validate_json(event, strict=True)
        raw = json.loads(event)
        assert_holds(raw, CHUNK)
        for choice in raw["choices"]:
            assert_holds(choice, CHUNK_CHOICE)
            if choice.get("logprobs") is not None:
                assert_scores(choice["logprobs"], asked=True)
            for call in choice["delta"].get("tool_calls", []):
                assert_holds(call, ("index",))
    last = json.loads(events[-1])
    assert last["choices"] == []
    assert_holds(last["usage"], USAGE)
    assert all(json.loads(event)["choices"] for event in events[:-1])


def assert_scores(logprobs: Any, *, asked: bool) -> None:
    assert (logprobs is not None) == asked
    if logprobs is not None:
        assert_holds(logprobs, LOGPROBS)
        for token in logprobs["content"]:
            assert_holds(token, TOKEN)
            for alternative in token["top_logprobs"]:
                assert_holds(alternative, TOP_TOKEN)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"prompt": "Portico is"}, id="text"),
        pytest.param({"prompt": [5, 6, 7]}, id="ids"),
        pytest.param({"prompt": "Portico is", "logprobs": 2}, id="logprobs"),
        pytest.param({"prompt": ["Portico is", "MLX is"], "n": 2}, id="several"),
        pytest.param({"prompt": "Portico is", "echo": True, "logprobs": 1}, id="echo"),
    ],
)
def test_raw_completions_are_valid_and_have_every_required_field(
    base_url: str, options: dict[str, Any]
) -> None:
    body = {"model": MODEL, "temperature": 0, "max_tokens": 5} | options
    whole = httpx.post(f"{base_url}/completions", json=body, timeout=60)
    assert whole.status_code == 200, whole.text
    streamed = events_of(
        httpx.post(f"{base_url}/completions", json=body | {"stream": True}, timeout=60)
    )
    if "echo" not in options:  # the first token of a prompt has no logprob; the type knows no null
        Completion.model_validate_json(whole.content, strict=True)
    for text in (whole.text, *streamed):
        raw = json.loads(text)
        assert_holds(raw, COMPLETION)
        for choice in raw["choices"]:
            assert_holds(choice, COMPLETION_CHOICE)
    assert_holds(whole.json()["usage"], USAGE)


def test_raw_models_are_valid_and_have_every_required_field(base_url: str) -> None:
    listing = httpx.get(f"{base_url}/models").json()
    assert_holds(listing, MODELS)
    one = httpx.get(f"{base_url}/models/portico%2Fdemo")
    Model.model_validate_json(one.content, strict=True)
    for model in (*listing["data"], one.json()):
        assert_holds(model, MODEL_FIELDS)


def test_a_raw_error_has_every_required_field(base_url: str) -> None:
    body = {"model": MODEL, "messages": []}
    for answer in (
        httpx.post(f"{base_url}/chat/completions", json=body),
        httpx.get(f"{base_url}/models/nope"),
        httpx.get(f"{base_url}/nope"),
        httpx.get(f"{base_url}/chat/completions"),
    ):
        assert answer.status_code >= 400
        assert set(answer.json()) == {"error"}
        assert_holds(answer.json()["error"], ERROR)
        assert answer.headers["x-request-id"]
