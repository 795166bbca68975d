"""n, best_of, lists of prompts, echo: many answers in one body."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from adapters.container import Container
from adapters.settings import Settings
from tests.servers import LiveServer, live_server


@pytest.fixture(scope="module")
def mlx_server(tiny_model: Path) -> Iterator[LiveServer]:
    settings = Settings(available_models=(str(tiny_model),), default_model="tiny", max_choices=4)
    with live_server(Container(settings=settings)) as server:
        yield server


@pytest.fixture
def mlx(mlx_server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{mlx_server.url}/v1", api_key="x", max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, text: str = "hello", **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(
        model="tiny", messages=messages, **({"max_tokens": 8, "seed": 1} | options)
    )


def test_n_choices_differ_and_share_the_prompt(mlx: openai.OpenAI, mlx_server: LiveServer) -> None:
    chat(mlx, "something else")  # has the model loaded
    before = mlx_server.snapshot.residents[0].stats.prefilled_tokens
    four = chat(mlx, "good day to you", n=4)
    after = mlx_server.snapshot.residents[0].stats.prefilled_tokens
    one = chat(mlx, "good day to you")
    assert [choice.index for choice in four.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in four.choices}) > 1
    assert four.choices[0].message.content == one.choices[0].message.content
    assert four.usage.prompt_tokens == one.usage.prompt_tokens
    assert four.usage.completion_tokens == 32
    assert after - before <= one.usage.prompt_tokens + 3  # and the last token of each choice


def test_streamed_choices_open_in_order_and_assemble(mlx: openai.OpenAI) -> None:
    whole = chat(mlx, n=3, temperature=0)
    chunks = list(chat(mlx, n=3, temperature=0, stream=True))
    assert [chunk.choices[0].index for chunk in chunks[:3]] == [0, 1, 2]
    assert [chunk.choices[0].delta.role for chunk in chunks[:3]] == ["assistant"] * 3
    with mlx.chat.completions.stream(
        model="tiny",
        messages=[{"role": "user", "content": "hello"}],
        n=3,
        temperature=0,
        max_tokens=8,
        stream_options={"include_usage": True},
    ) as stream:
        for _ in stream:
            pass
        snapshot = stream.current_completion_snapshot
    contents = [choice.message.content for choice in snapshot.choices]
    assert contents == [choice.message.content for choice in whole.choices]
    assert snapshot.usage is not None
    assert snapshot.usage.total_tokens == whole.usage.total_tokens
    assert snapshot.usage.completion_tokens == whole.usage.completion_tokens


def test_more_choices_than_the_cap_are_refused(mlx: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="at most 4") as caught:
        chat(mlx, n=5)
    assert caught.value.param == "n"


def complete(client: openai.OpenAI, **options: Any) -> Any:
    given = {"prompt": "hello", "max_tokens": 6, "seed": 1} | options
    return client.completions.create(model="tiny", **given)


def test_prompts_in_a_list_are_answered_in_order(mlx: openai.OpenAI) -> None:
    alone = [complete(mlx, prompt=p, temperature=0).choices[0].text for p in ("one", "two")]
    both = complete(mlx, prompt=["one", "two"], n=2, temperature=0)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in both.choices] == [alone[0]] * 2 + [alone[1]] * 2
    assert both.usage.completion_tokens == 24
    assert both.usage.prompt_tokens == 6
    tokens = complete(mlx, prompt=[[111, 110, 101], [116]], temperature=0)
    assert len(tokens.choices) == 2


def test_the_best_are_the_likeliest(mlx: openai.OpenAI) -> None:
    candidates = complete(mlx, n=4, logprobs=0).choices
    means = [sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in candidates]
    best = complete(mlx, n=1, best_of=4)
    assert best.choices[0].text == candidates[means.index(max(means))].text
    assert best.choices[0].logprobs is None
    assert best.usage.completion_tokens == 24


def test_echo_begins_with_the_prompt_and_its_scores(mlx: openai.OpenAI) -> None:
    plain = complete(mlx, temperature=0)
    echoed = complete(mlx, temperature=0, echo=True, logprobs=2).choices[0]
    assert echoed.text == "hello" + plain.choices[0].text
    assert echoed.logprobs.tokens[:5] == list("hello")
    assert echoed.logprobs.token_logprobs[0] is None
    assert echoed.logprobs.top_logprobs[0] is None
    assert all(logprob is not None for logprob in echoed.logprobs.token_logprobs[1:])
    assert echoed.logprobs.text_offset[:5] == [0, 1, 2, 3, 4]
    only = complete(mlx, temperature=0, echo=True, max_tokens=0)
    assert only.choices[0].text == "hello"
    assert only.usage.completion_tokens == 0


def test_a_suffix_is_refused_where_it_can_not_be_honoured(mlx: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(mlx, suffix="world")
    assert caught.value.param == "suffix"
