"""LiteLLM as a library, in its `openai/` dialect."""

import json
import os
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched at import

import litellm

from tests.clients.shared import (
    ADD,
    ANSWER,
    MODEL,
    QUESTION,
    THINKING,
    TOO_LONG,
    TOOLS,
    WEATHER_QUESTION,
    Guest,
    user,
)

# LiteLLM reads a computed field from an instance, which pydantic 2.11 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")

litellm.telemetry = False
litellm.suppress_debug_info = True


def options(base_url: str, *messages: Any, **more: Any) -> dict[str, Any]:
    return {
        "model": f"openai/{MODEL}",
        "messages": [user(m) if isinstance(m, str) else m for m in messages],
        "api_base": base_url,
        "api_key": "x",
        "temperature": 0,
        "max_tokens": 200,
        "num_retries": 0,
    } | more


def ask(base_url: str, *messages: Any, **more: Any) -> Any:
    return litellm.completion(**options(base_url, *messages, **more))


def test_a_question_is_answered_with_its_usage(base_url: str) -> None:
    answer = ask(base_url, QUESTION)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage.prompt_tokens > 0 < usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_the_async_call_says_the_same(base_url: str) -> None:
    answer: Any = await litellm.acompletion(**options(base_url, QUESTION))
    assert answer.choices[0].message.content == ANSWER


def test_a_stream_says_the_same_with_the_same_usage(base_url: str) -> None:
    chunks = list(ask(base_url, QUESTION, stream=True, stream_options={"include_usage": True}))
    built: Any = litellm.stream_chunk_builder(chunks)
    assert built.choices[0].message.content == ANSWER
    assert built.choices[0].finish_reason == "stop"
    (usage,) = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert usage.completion_tokens == ask(base_url, QUESTION).usage.completion_tokens


async def test_an_async_stream_says_the_same(base_url: str) -> None:
    stream: Any = await litellm.acompletion(**options(base_url, QUESTION, stream=True))
    text = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(text) == ANSWER


def test_a_tool_is_called_and_its_result_becomes_an_answer(base_url: str) -> None:
    choice = ask(base_url, WEATHER_QUESTION, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "7 degrees"}
    turn = choice.message.model_dump(exclude_none=True)
    answer = ask(base_url, WEATHER_QUESTION, turn, result, tools=TOOLS)
    assert "7 degrees" in answer.choices[0].message.content


def test_a_streamed_call_is_put_together(base_url: str) -> None:
    chunks = list(ask(base_url, WEATHER_QUESTION, tools=TOOLS, stream=True))
    built: Any = litellm.stream_chunk_builder(chunks)
    (call,) = built.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_weather",
        {"city": "Oslo"},
    )
    assert built.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_tool_is_called_when_it_must_be(base_url: str, choice: Any) -> None:
    message = ask(base_url, QUESTION, tools=[ADD], tool_choice=choice).choices[0].message
    assert message.tool_calls
    for call in message.tool_calls:
        assert call.function.name == "add"
        assert set(json.loads(call.function.arguments)) == {"a", "b"}


def test_an_answer_follows_a_pydantic_model(base_url: str) -> None:
    answer = ask(base_url, QUESTION, response_format=Guest)
    Guest.model_validate_json(answer.choices[0].message.content)


def test_an_answer_follows_a_json_schema(base_url: str) -> None:
    schema = {"name": "guest", "schema": Guest.model_json_schema(), "strict": True}
    answer = ask(base_url, QUESTION, response_format={"type": "json_schema", "json_schema": schema})
    Guest.model_validate_json(answer.choices[0].message.content)


def test_thoughts_come_apart_from_the_answer(base_url: str) -> None:
    message = ask(base_url, QUESTION, extra_body=THINKING).choices[0].message
    assert message.reasoning_content
    assert message.content == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_known_for_what_it_is(base_url: str, stream: bool) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        list(ask(base_url, TOO_LONG, stream=stream))


def test_other_errors_keep_their_meaning(base_url: str) -> None:
    with pytest.raises(litellm.NotFoundError):
        ask(base_url, QUESTION, model="openai/no/such")
    with pytest.raises(litellm.BadRequestError):
        ask(base_url, QUESTION, temperature=9)


def test_a_text_is_continued(base_url: str) -> None:
    answer: Any = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        prompt="Portico is",
        api_base=base_url,
        api_key="x",
        temperature=0,
        max_tokens=12,
    )
    assert answer.choices[0].text
