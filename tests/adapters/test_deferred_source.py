"""A source that is made when it is first asked, and says what the one behind it says."""

import asyncio
from contextlib import aclosing

from adapters.huggingface.deferred import DeferredSource
from domain.models import ModelId, PullPhase
from tests.fakes import FakeSource

MODEL = ModelId.parse("org/one")


async def test_the_source_is_made_once_and_only_when_asked() -> None:
    made: list[FakeSource] = []

    def make() -> FakeSource:
        made.append(FakeSource())
        return made[-1]

    source = DeferredSource(make)
    assert made == []
    answers = await asyncio.gather(source.search("one", 5), source.search("one", 5))
    assert answers == [(), ()]
    assert len(made) == 1


async def test_pulls_and_their_end_reach_the_source_behind() -> None:
    behind = FakeSource()
    source = DeferredSource(lambda: behind)
    said = [progress.phase async for progress in source.pull(MODEL, None)]
    assert said[-1] is PullPhase.DONE
    async with aclosing(source.pull(MODEL, "main")) as progresses:
        await anext(progresses)
    assert behind.pulls == [(MODEL, None), (MODEL, "main")]
    assert behind.stopped == 1
