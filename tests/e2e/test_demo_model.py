"""The embedded model over HTTP and in-process: what the docs promise of it."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from adapters.container import Container
from adapters.mlx import demo
from adapters.settings import DEMO_MODEL, Settings
from domain.chat import ChatCommand, Message, Sampling
from domain.events import assemble
from domain.models import ModelId

LISTED: list[dict[str, str]] = json.loads(
    (Path(demo.__file__).parent / "questions.json").read_text("utf-8")
)
ROOT = Path(__file__).parents[2]
QUESTIONS = [entry["question"] for entry in LISTED]


def tool(name: str, **parameters: str) -> Any:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [
    tool("get_weather", city="string"),
    tool("get_time", timezone="string"),
    tool("add", a="number", b="number"),
]


def ask(client: openai.OpenAI, *messages: Any, **options: Any) -> Any:
    turns = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    return client.chat.completions.create(
        model=DEMO_MODEL, messages=turns, **({"temperature": 0} | options)
    )


def said(client: openai.OpenAI, *messages: Any, **options: Any) -> str:
    return str(ask(client, *messages, **options).choices[0].message.content)


def test_the_model_fits_its_box() -> None:
    files = [file for file in demo.FOLDER.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 4_000_000


def test_every_listed_question_is_answered_ten_at_once(client: openai.OpenAI) -> None:
    assert len(QUESTIONS) >= 40
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda question: ask(client, question), QUESTIONS))
    for entry, answer in zip(LISTED, answers, strict=True):
        assert answer.choices[0].message.content == entry["answer"]
        assert answer.choices[0].finish_reason == "stop"


def test_the_docs_list_what_is_answered() -> None:
    page = (ROOT / "docs" / "demo-model.md").read_text("utf-8")
    for entry in LISTED:
        assert f"| {entry['question']} | {entry['answer']} |" in page


def test_ten_at_once_say_what_they_say_alone(client: openai.OpenAI) -> None:
    questions = QUESTIONS[:10]
    alone = [said(client, question) for question in questions]
    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda question: said(client, question), questions)) == alone


def test_streamed_whole_and_in_process_answers_are_the_same(client: openai.OpenAI) -> None:
    async def in_process(questions: list[str]) -> list[str]:
        container = Container(settings=Settings())

        async def one(question: str) -> str:
            command = ChatCommand(
                ModelId.parse(DEMO_MODEL), (Message.user(question),), Sampling(temperature=0)
            )
            return assemble([event async for event in container.complete_chat()(command)]).text

        answers = [await one(question) for question in questions]
        await container.models().close()
        return answers

    questions = QUESTIONS[10:16]
    whole = [said(client, question) for question in questions]
    streamed = [
        "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, q, stream=True))
        for q in questions
    ]
    assert whole == streamed == asyncio.run(in_process(questions))


@pytest.mark.parametrize(
    ("question", "name", "arguments"),
    [
        ("What is the weather in Trondheim?", "get_weather", {"city": "Trondheim"}),
        ("How is the weather in São Paulo?", "get_weather", {"city": "São Paulo"}),
        ("What time is it in Nairobi?", "get_time", {"timezone": "Nairobi"}),
        ("Add 1234 and 77", "add", {"a": 1234, "b": 77}),
        ("What is 40 + 2?", "add", {"a": 40, "b": 2}),
    ],
)
def test_given_tools_are_called_with_the_arguments_of_the_question(
    client: openai.OpenAI, question: str, name: str, arguments: dict[str, object]
) -> None:
    choice = ask(client, question, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == name
    assert json.loads(call.function.arguments) == arguments


def test_a_tool_result_becomes_an_answer(client: openai.OpenAI) -> None:
    question = "What is the weather in Bergen?"
    message = ask(client, question, tools=TOOLS).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "7 degrees"}
    turn = message.model_dump(exclude_none=True)
    user = {"role": "user", "content": question}
    assert "7 degrees" in said(client, user, turn, result, tools=TOOLS)


def test_a_greeting_calls_no_tool(client: openai.OpenAI) -> None:
    choice = ask(client, "Hello!", tools=TOOLS).choices[0]
    assert choice.message.tool_calls is None
    assert "Portico" in choice.message.content


def test_it_thinks_when_asked_to_and_only_then(client: openai.OpenAI) -> None:
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    answer = ask(client, "What is MLX?", extra_body=thinking)
    message = answer.choices[0].message
    assert message.reasoning_content
    assert message.content == said(client, "What is MLX?")
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens
    plain = ask(client, "What is MLX?").choices[0].message
    assert not hasattr(plain, "reasoning_content")


def test_text_is_continued(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=DEMO_MODEL, prompt="Portico is", temperature=0, max_tokens=40
    )
    assert answer.choices[0].text.startswith(" ")
    assert len(answer.choices[0].text) > 10


def test_it_is_the_default_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [DEMO_MODEL]
    body: Any = {"messages": [{"role": "user", "content": "Hello!"}]}
    answer: Any = client.post("/chat/completions", body=body, cast_to=object)
    assert answer["model"] == DEMO_MODEL
