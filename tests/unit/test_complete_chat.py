"""The walk of an answer, from command to events, on the scripted engine."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from adapters.scripted.engine import Script, ScriptedLoader
from application.complete_chat import CompleteChat
from application.complete_text import CompleteText
from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from application.ports import EngineStats
from domain.chat import ChatCommand, Image, Message, Sampling, TextCommand, Tool
from domain.errors import (
    ContextOverflow,
    DomainError,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ShuttingDown,
)
from domain.events import (
    ChatAnswer,
    ChatEvent,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    assemble,
)
from domain.models import ModelId
from domain.outputs import PromptProgress
from tests.fakes import FakeCatalog, make_card

MODEL = ModelId("test/model")
WEATHER = Tool("weather")
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
COUNT = "one two three four five six"


class House:
    """The use cases over one scripted model."""

    def __init__(self, script: Script) -> None:
        catalog = FakeCatalog(make_card(str(MODEL)))
        self.pool = ModelPool(catalog, ScriptedLoader(script), time.monotonic, PoolLimits(10))
        self.chat = CompleteChat(self.pool)
        self.text = CompleteText(self.pool)

    @property
    def stats(self) -> EngineStats:
        (resident,) = self.pool.snapshot().residents
        return resident.stats

    @property
    def is_idle(self) -> bool:
        return (self.pool.snapshot().leases, self.stats.running, self.stats.waiting) == (0, 0, 0)


def ask(
    text: str = "hello", *tools: Tool, parallel: bool = True, **sampling: object
) -> ChatCommand:
    settings = Sampling(**sampling)  # type: ignore[arg-type]
    messages = (Message.user(text),)
    return ChatCommand(MODEL, messages, settings, tools, parallel_tool_calls=parallel)


async def gather(events: AsyncGenerator[ChatEvent, None]) -> list[ChatEvent]:
    async with aclosing(events):
        return [event async for event in events]


async def answer(script: Script, command: ChatCommand) -> ChatAnswer:
    return assemble(await gather(House(script).chat(command)))


async def test_events_keep_their_grammar() -> None:
    reply = f"<think>\nhm\n</think>\nLook: {CALL} done"
    events = await gather(House(Script(reply)).chat(ask("hello", WEATHER)))
    kinds = [type(event) for event in events]
    assert kinds[0] is PromptProgress
    assert kinds[-1] is Finished
    assert set(kinds[1:-1]) == {ReasoningDelta, TextDelta, ToolCallDelta}


async def test_thoughts_calls_and_text_are_told_apart() -> None:
    reply = f"<think>\nhm\n</think>\nLook: {CALL}"
    said = await answer(Script(reply), ask("hello", WEATHER))
    assert (said.reasoning, said.text, said.reason) == ("hm", "Look:", "tool_calls")
    (call,) = said.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Paris"})


async def test_without_tools_a_call_is_text() -> None:
    said = await answer(Script(CALL), ask())
    assert (said.text, said.tool_calls) == (CALL, ())


async def test_a_broken_call_is_text() -> None:
    broken = '<tool_call>{"name": "weather", "argu'
    said = await answer(Script(broken), ask("hello", WEATHER))
    assert (said.text, said.tool_calls, said.reason) == (broken, (), "stop")


async def test_a_call_whose_name_is_no_name_is_text() -> None:
    odd = '<tool_call>{"name": ["weather"], "arguments": {}}</tool_call>'
    said = await answer(Script(odd), ask("hello", WEATHER))
    assert (said.text, said.tool_calls, said.reason) == (odd, (), "stop")


async def test_usage_comes_from_the_engine() -> None:
    usage = (await answer(Script("one two three"), ask("a b"))).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 3)


async def test_a_limit_ends_with_length() -> None:
    said = await answer(Script(COUNT), ask(max_tokens=2))
    assert (said.text, said.reason) == ("one two", "length")


async def test_scores_come_with_the_text_they_are_of() -> None:
    said = await answer(Script("<think>hm</think> one two"), ask(top_logprobs=2))
    assert "".join(score.token for score in said.scores).endswith("one two")
    assert [len(score.alternatives) for score in said.scores] == [2] * len(said.scores)


async def test_a_stop_string_ends_the_generation_early() -> None:
    house = House(Script(COUNT))
    said = assemble(await gather(house.chat(ask(stop=(" three",)))))
    assert (said.text, said.reason) == ("one two", "stop")
    assert house.stats.generated_tokens == 3
    assert house.is_idle


async def test_without_parallel_tool_calls_the_first_ends_the_generation() -> None:
    house = House(Script(f"{CALL} {CALL} and so on"))
    said = assemble(await gather(house.chat(ask("hello", WEATHER, parallel=False))))
    assert (len(said.tool_calls), said.reason) == (1, "tool_calls")
    assert house.stats.generated_tokens == said.usage.completion_tokens


@pytest.mark.parametrize("after", [1, 2, 4])
async def test_closing_early_gives_place_and_lease_back(after: int) -> None:
    house = House(Script(COUNT))
    events = house.chat(ask())
    for _ in range(after):
        await anext(events)
    assert house.pool.snapshot().leases == 1
    assert house.stats.running == 1
    await events.aclose()
    assert house.is_idle
    assert house.stats.generated_tokens <= after


async def test_nothing_happens_before_the_first_event_is_asked_for() -> None:
    house = House(Script(COUNT))
    events = house.chat(ask())
    assert house.pool.snapshot().residents == ()
    await events.aclose()
    assert house.pool.snapshot().residents == ()


async def test_answers_share_the_engine() -> None:
    house = House(Script(COUNT))
    async with aclosing(house.chat(ask())) as first, aclosing(house.chat(ask())) as second:
        await anext(first)
        await anext(second)
        assert house.pool.snapshot().leases == 2
        assert house.stats.running == 2
    assert house.is_idle


REFUSED: list[tuple[ChatCommand, type[DomainError]]] = [
    (ChatCommand(ModelId("nobody"), (Message.user("a"),)), ModelNotFound),
    (ask("word " * 600), ContextOverflow),
    (ChatCommand(MODEL, (Message("user", (Image("data:,"),)),)), InvalidRequest),
]


@pytest.mark.parametrize(("command", "error"), REFUSED)
async def test_a_refusal_comes_before_any_event(
    command: ChatCommand, error: type[DomainError]
) -> None:
    house = House(Script(COUNT))
    events = house.chat(command)
    with pytest.raises(error):
        await anext(events)
    assert house.pool.snapshot().leases == 0


async def test_an_engine_that_breaks_fails_its_answer_and_the_next_gets_a_new_one() -> None:
    house = House(Script(COUNT, fail_after=2))
    events = house.chat(ask())
    seen: list[ChatEvent] = []
    with pytest.raises(EngineFailed):
        async for event in events:
            seen.append(event)
    assert "".join(e.text for e in seen if isinstance(e, TextDelta)) == "one two"
    assert house.pool.snapshot().leases == 0
    said = assemble(await gather(house.chat(ask(max_tokens=1))))
    assert said.text == "one"


async def test_a_limit_is_reached_before_a_fault_that_would_come_later() -> None:
    said = await answer(Script(COUNT, fail_after=6), ask(max_tokens=2))
    assert (said.text, said.reason) == ("one two", "length")


async def test_closing_the_pool_tells_those_in_flight() -> None:
    house = House(Script(COUNT))
    events = house.chat(ask())
    await anext(events)
    await house.pool.close()
    with pytest.raises(ShuttingDown):
        await gather(events)
    assert house.pool.snapshot().leases == 0


async def test_a_text_is_continued_as_it_is() -> None:
    reply = f"<think>hm</think> {CALL} "
    house = House(Script(reply))
    said = assemble(await gather(house.text(TextCommand(MODEL, "Once"))))
    assert (said.text, said.reasoning, said.tool_calls, said.reason) == (reply, "", (), "stop")


async def test_a_continued_text_ends_at_a_stop_string() -> None:
    house = House(Script(COUNT))
    command = TextCommand(MODEL, (1, 2, 3), Sampling(stop=("four",)))
    said = assemble(await gather(house.text(command)))
    assert (said.text, said.usage.prompt_tokens) == ("one two three ", 3)
    assert house.stats.generated_tokens == 4
    assert house.is_idle
