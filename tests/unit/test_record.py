"""Answers are timed: queue, prefill and decode, and the gaps between tokens."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from adapters.scripted.engine import Script, ScriptedLoader
from application.answer import Watch
from application.complete_chat import CompleteChat
from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from application.record import AnswerRecord, Observers, observed
from domain.chat import ChatCommand, Message, Sampling
from domain.errors import EngineFailed, ModelNotFound
from domain.events import ChatEvent, Finished, assemble
from domain.models import ModelId
from domain.outputs import End, Piece, PromptProgress
from domain.timings import GAP_BOUNDS, Timings
from tests.fakes import FakeCatalog, FakeClock, make_card

MODEL = ModelId("test/model")


class Watcher:
    """Remembers who called, with what."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.records: list[AnswerRecord] = []

    def begun(self, record: AnswerRecord) -> None:
        self.calls.append("begun")
        self.records.append(record)

    def first_token(self, record: AnswerRecord) -> None:
        self.calls.append("first token")

    def ended(self, record: AnswerRecord) -> None:
        self.calls.append("ended")
        assert record.ended is not None


def ask(
    watcher: Watcher, model: ModelId = MODEL, **script: object
) -> AsyncGenerator[ChatEvent, None]:
    loader = ScriptedLoader(Script(**script))  # type: ignore[arg-type]
    pool = ModelPool(FakeCatalog(make_card(str(MODEL))), loader, time.monotonic, PoolLimits(10))
    command = ChatCommand(model, (Message.user("one two three"),), Sampling())
    return CompleteChat(pool, Watch(Observers(watcher)))(command)


def test_times_are_told_apart() -> None:
    clock = FakeClock()
    record = AnswerRecord(MODEL, clock, clock())
    clock.now += 2
    record.note(PromptProgress(0, 10))
    clock.now += 3
    record.note(PromptProgress(10, 10, cached=4))
    assert record.note(Piece("a"))
    for gap in (0.0005, 0.02, 100.0):
        clock.now += gap
        assert not record.note(Piece("b"))
    clock.now += 1
    record.note(End("stop"))
    assert record.timings == Timings(2, 3, pytest.approx(100.0205))
    assert (record.prompt_tokens, record.cached_tokens, record.generated_tokens) == (10, 4, 4)
    counted = {bound: n for bound, n in zip([*GAP_BOUNDS, "more"], record.gaps, strict=True) if n}
    assert counted == {0.001: 1, 0.025: 1, "more": 1}


def test_what_has_not_come_yet_takes_no_time() -> None:
    clock = FakeClock()
    record = AnswerRecord(MODEL, clock, clock())
    clock.now += 2
    assert record.timings == Timings(2, 0, 0)
    record.note(PromptProgress(0, 10))
    clock.now += 1
    assert record.timings == Timings(2, 1, 0)
    record.ended = clock()
    clock.now += 5
    assert record.timings == Timings(2, 1, 0)
    assert record.duration == 3


async def test_an_answer_is_watched_and_tells_its_timings() -> None:
    watcher = Watcher()
    async with aclosing(ask(watcher, prompt_delay=0.02, token_delay=0.01)) as events:
        said = [event async for event in events]
    assert watcher.calls == ["begun", "first token", "ended"]
    (record,) = watcher.records
    assert (record.reason, record.error, record.generated_tokens) == ("stop", None, 3)
    answer = assemble(said)
    assert answer.timings == record.timings
    assert answer.timings.prefill >= 0.02
    assert answer.timings.decode >= 0.015
    assert isinstance(said[-1], Finished)


async def test_who_waits_for_a_place_is_in_the_queue() -> None:
    watcher = Watcher()
    async with aclosing(ask(watcher, load_delay=0.03)) as events:
        answer = assemble([event async for event in events])
    assert answer.timings.queue >= 0.03
    assert answer.timings.prefill < answer.timings.first_token


async def test_a_failure_is_in_the_record() -> None:
    watcher = Watcher()
    with pytest.raises(EngineFailed):
        async with aclosing(ask(watcher, fail_after=1)) as events:
            async for _ in events:
                pass
    assert watcher.calls == ["begun", "first token", "ended"]
    assert isinstance(watcher.records[0].error, EngineFailed)
    assert watcher.records[0].reason is None
    with pytest.raises(ModelNotFound):
        await anext(ask(watcher, ModelId("not/here")))
    assert watcher.calls[3:] == ["begun", "ended"]
    assert watcher.records[1].leased is None


def test_what_nobody_foresaw_is_a_failure_and_no_client_that_left() -> None:
    watcher = Watcher()
    with pytest.raises(ZeroDivisionError), observed(MODEL, time.monotonic, watcher):
        raise ZeroDivisionError
    assert isinstance(watcher.records[0].error, ZeroDivisionError)


async def test_an_answer_that_nobody_reads_on_has_ended_all_the_same() -> None:
    watcher = Watcher()
    async with aclosing(ask(watcher)) as events:
        await anext(events)
    (record,) = watcher.records
    assert watcher.calls == ["begun", "ended"]
    assert (record.reason, record.error) == (None, None)
