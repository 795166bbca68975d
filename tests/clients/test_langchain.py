"""LangChain's ChatOpenAI: messages, streams, tools, structured output, usage."""

from typing import Any, Literal

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import SecretStr

from tests.clients.shared import (
    ANSWER,
    MODEL,
    OVERFLOW,
    QUESTION,
    TOO_LONG,
    TOOLS,
    WEATHER_QUESTION,
    Guest,
)

# LangChain keeps one asynchronous HTTP client for all who use the same address.
one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def chat(base_url: str, monkeypatch: pytest.MonkeyPatch) -> ChatOpenAI:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    return ChatOpenAI(
        model=MODEL,
        base_url=base_url,
        api_key=SecretStr("x"),
        temperature=0,
        max_completion_tokens=200,
        max_retries=0,
    )


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"7 degrees in {city}"


def test_a_question_is_answered_with_its_usage(chat: ChatOpenAI) -> None:
    answer = chat.invoke(QUESTION)
    assert answer.content == ANSWER
    assert answer.response_metadata["finish_reason"] == "stop"
    usage = answer.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] > 0 < usage["output_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_a_stream_says_the_same_with_the_same_usage(chat: ChatOpenAI) -> None:
    first, *rest = chat.stream(QUESTION, stream_usage=True)
    whole = first
    for chunk in rest:
        whole += chunk
    assert whole.content == ANSWER
    assert whole.usage_metadata == chat.invoke(QUESTION).usage_metadata
    assert len(rest) > 2


@one_loop
async def test_the_async_calls_say_the_same(chat: ChatOpenAI) -> None:
    assert (await chat.ainvoke(QUESTION)).content == ANSWER
    assert "".join([str(chunk.content) async for chunk in chat.astream(QUESTION)]) == ANSWER


def test_a_batch_is_answered_in_order(chat: ChatOpenAI) -> None:
    questions = [QUESTION, "Thank you", QUESTION, "Goodbye"]
    answers = [answer.content for answer in chat.batch(list(questions))]
    assert answers == [ANSWER, "You are welcome.", ANSWER, "Goodbye!"]


def test_a_tool_is_called_and_its_result_becomes_an_answer(chat: ChatOpenAI) -> None:
    with_tools = chat.bind_tools([get_weather])
    question = HumanMessage(WEATHER_QUESTION)
    asked = with_tools.invoke([question])
    assert asked.response_metadata["finish_reason"] == "tool_calls"
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Oslo"})
    result: ToolMessage = get_weather.invoke(call)
    assert "7 degrees" in str(with_tools.invoke([question, asked, result]).content)


def test_a_streamed_call_is_put_together(chat: ChatOpenAI) -> None:
    first, *rest = chat.bind_tools(TOOLS).stream(WEATHER_QUESTION)
    whole: Any = first
    for chunk in rest:
        whole += chunk
    (call,) = whole.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Oslo"})


@pytest.mark.parametrize("choice", ["any", "add", "required"])
def test_a_tool_is_called_when_it_must_be(chat: ChatOpenAI, choice: str) -> None:
    answer = chat.bind_tools(TOOLS, tool_choice=choice).invoke("Hello")
    assert isinstance(answer, AIMessage)
    assert answer.tool_calls
    assert answer.invalid_tool_calls == []
    names = {call["name"] for call in answer.tool_calls}
    assert names <= ({"add"} if choice == "add" else {"get_weather", "get_time", "add"})


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("question", [QUESTION, "Hello"])
def test_an_answer_follows_a_pydantic_model(
    chat: ChatOpenAI, method: Literal["json_schema", "function_calling"], question: str
) -> None:
    structured = chat.with_structured_output(Guest, method=method)
    assert isinstance(structured.invoke(question), Guest)


@one_loop
@pytest.mark.parametrize("strict", [None, True])
async def test_an_async_answer_follows_a_plain_schema(
    chat: ChatOpenAI, strict: bool | None
) -> None:
    structured = chat.with_structured_output(
        Guest.model_json_schema(), method="json_schema", strict=strict
    )
    Guest.model_validate(await structured.ainvoke(QUESTION))


# LangChain dumps the client's parsed message, whose declared type has no such field.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
def test_a_streamed_answer_follows_a_pydantic_model(chat: ChatOpenAI) -> None:
    parts = list(chat.with_structured_output(Guest, method="json_schema").stream(QUESTION))
    assert isinstance(parts[-1], Guest)


def test_a_text_is_continued(base_url: str) -> None:
    model = OpenAI(model=MODEL, base_url=base_url, api_key=SecretStr("x"), temperature=0)
    assert model.invoke("Portico is", max_tokens=12)
    assert len(model.batch(["Portico is", "MLX is"], max_tokens=12)) == 2


def test_errors_are_those_of_the_official_client(chat: ChatOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=OVERFLOW):
        chat.invoke(TOO_LONG)
    with pytest.raises(openai.NotFoundError):
        chat.invoke(QUESTION, model="no/such")
