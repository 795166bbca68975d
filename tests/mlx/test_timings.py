"""The real engine tells queue, prefill and decode apart, and what came from the prefix cache."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from adapters.container import Container
from adapters.settings import Settings
from domain.chat import ChatCommand, Message, Sampling
from domain.events import ChatAnswer, assemble
from domain.models import ModelId

TINY = ModelId.parse("tiny")
PROMPT = "a long prompt that is worth keeping " * 6


@pytest_asyncio.fixture
async def container(tiny_model: Path) -> AsyncIterator[Container]:
    """One place in the batch."""
    settings = Settings(available_models=(str(tiny_model),), max_batch_size=1)
    container = Container(settings=settings)
    container.metrics()
    yield container
    await container.models().close()


async def answer(container: Container, text: str, tokens: int) -> ChatAnswer:
    sampling = Sampling(temperature=0, max_tokens=tokens)
    command = ChatCommand(TINY, (Message.user(text),), sampling)
    async with aclosing(container.complete_chat()(command)) as events:
        return assemble([event async for event in events])


async def test_who_waits_for_the_batch_waits_in_the_queue(container: Container) -> None:
    await answer(container, "warm up", 2)
    first, second = await asyncio.gather(
        answer(container, PROMPT, 200), answer(container, "short", 3)
    )
    assert second.timings.queue > first.timings.decode
    assert 0 < first.timings.prefill < first.timings.first_token < first.timings.total


async def test_hits_of_the_prefix_cache_are_counted_in_tokens(container: Container) -> None:
    answers = [await answer(container, PROMPT, 5) for _ in range(2)]
    page, _ = await container.metrics().page("")
    counts = {
        sample.name: sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.labels == {"model_name": "tiny"}
    }
    prompt, cached = answers[1].usage.prompt_tokens, answers[1].usage.cached_tokens
    assert answers[0].usage.cached_tokens == 0
    assert prompt / 2 < cached < prompt
    assert counts["portico_prefix_cache_queries_total"] == 2 * prompt
    assert counts["portico_prefix_cache_hits_total"] == cached
    assert counts["portico_generation_tokens_total"] == 10
    assert counts["portico_inter_token_latency_seconds_count"] == 8
    assert counts["portico_model_loads_total"] == 1
    assert counts["portico_model_memory_bytes"] > 0
