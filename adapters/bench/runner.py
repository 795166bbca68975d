"""Runs stages against servers, and rounds of them side by side."""

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from adapters.bench.client import Endpoint, Hooks, Server, ask, body
from adapters.bench.figures import Sample, gaps_within, sample
from adapters.bench.prompts import Prompts
from adapters.bench.reply import Exchange, Reply, understand
from adapters.bench.scenarios import Message, Request, Stage

Chats = dict[str, list[Message]]  # by the name of the chat: what was said so far
Replies = list[tuple[Request, Reply]]
Exchanges = list[tuple[Request, Exchange]]
Results = dict[str, dict[str, list[Sample]]]  # by part, by server's name, one a round


@dataclass(frozen=True, slots=True)
class Asking:
    """How every request is sent."""

    endpoint: Endpoint = "chat"
    patience: float = 600.0  # seconds
    extra: Mapping[str, Any] = field(default_factory=dict)  # into every body; wins

    def body(self, server: Server, request: Request, before: Sequence[Message]) -> bytes:
        options = {"max_tokens": request.max_tokens, **request.sampling, **self.extra}
        return body(server, self.endpoint, [*before, *request.messages], options)

    async def ask(self, server: Server, data: bytes, hooks: Hooks | None = None) -> Exchange:
        return await ask(server, self.endpoint, data, self.patience, hooks)


@dataclass(frozen=True, slots=True)
class Course:
    """What happens around the stages of a run."""

    rounds: int = 1
    say: Callable[[str], None] = lambda _: None  # what is under way
    before_next_turn: Callable[[Server], Awaitable[None]] | None = None


async def side_by_side(
    servers: Sequence[Server],
    plan: Callable[[int], tuple[Stage, ...]],
    asking: Asking,
    course: Course,
) -> Results:
    """Each stage on one server after the other, round after round.

    So what else the machine does hits all of them alike. `plan` gives the stages of a round,
    the same to all servers; new prompts in each, lest a cache answers the second.
    """
    results: Results = {}
    for number in range(course.rounds):
        chats: dict[str, Chats] = {server.name: {} for server in servers}
        for stage in plan(number):
            for server in servers:
                course.say(f"round {number + 1} of {course.rounds}: {stage.name}, {server.name}")
                known = chats[server.name]
                if course.before_next_turn and any(r.chat in known for r in stage.requests):
                    await course.before_next_turn(server)
                replies = await run_stage(server, stage, asking, known)
                for name, part in parts(stage, replies).items():
                    results.setdefault(name, {}).setdefault(server.name, []).append(part)
    return results


async def run_stage(server: Server, stage: Stage, asking: Asking, chats: Chats) -> Replies:
    """The replies, in the order of sending, the late one last. Adds what was said to `chats`."""
    bodies = [
        (request, asking.body(server, request, chats.get(request.chat, ())))
        for request in stage.requests
    ]
    async with _no_garbage_collection():
        exchanges = await _exchanges(server, stage, asking, bodies)
    replies = [(request, understand(exchange)) for request, exchange in exchanges]
    for request, reply in replies:
        chats.setdefault(request.chat, []).extend([*request.messages, ("assistant", reply.text)])
    return replies


def parts(stage: Stage, replies: Replies) -> dict[str, Sample]:
    """The samples that a stage gives, by name.

    With a late request: all of the streams, only their gaps between its sending and its first
    token, and itself.
    """
    at_once = len(stage.requests) <= stage.concurrency
    if stage.late is None:
        return {stage.name: sample([reply for _, reply in replies], at_once=at_once)}
    streams = [reply for request, reply in replies if request is not stage.late]
    late = next(reply for request, reply in replies if request is stage.late)
    disturbed = gaps_within(streams, late.sent, late.arrivals[0]) if late.arrivals else Sample()
    return {
        stage.name: sample(streams, at_once=at_once),
        f"{stage.name}, disturbed": disturbed,
        f"{stage.name}, long prompt": sample([late]),
    }


async def tokens_per_word(server: Server, asking: Asking, seed: str) -> float | None:
    """How many tokens the server counts for a word of a prompt; None where it doesn't tell."""
    counts = []
    fewer, more = 40, 240  # the difference is free of what the chat template adds
    for words in (fewer, more):
        text = Prompts(f"{seed}/probe", tokens_per_word=1).exactly(words)
        request = Request("probe", (("user", text),), max_tokens=1)
        reply = understand(await asking.ask(server, asking.body(server, request, ())))
        if not reply.counted:
            return None
        counts.append(reply.prompt_tokens)
    rate = (counts[1] - counts[0]) / (more - fewer)
    return rate if rate > 0 else None


@asynccontextmanager
async def _no_garbage_collection() -> AsyncIterator[None]:
    """Its pauses would be taken for the server's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Gate:
    """Opens when it was knocked at so many times."""

    def __init__(self, knocks: int) -> None:
        self._missing = knocks
        self._open = asyncio.Event()

    def knock(self) -> None:
        self._missing -= 1
        if self._missing <= 0:
            self._open.set()

    async def wait(self) -> None:
        await self._open.wait()


async def _exchanges(
    server: Server, stage: Stage, asking: Asking, bodies: Sequence[tuple[Request, bytes]]
) -> Exchanges:
    waiting = deque(enumerate(bodies))
    width = min(stage.concurrency, len(bodies))
    all_connected = asyncio.Barrier(width)  # so that the first of each are sent at once
    all_heard = _Gate(width)
    done: dict[int, tuple[Request, Exchange]] = {}

    async def stream() -> None:
        hooks: Hooks | None = Hooks(all_connected.wait, stage.heard_before, all_heard.knock)
        while waiting:
            number, (request, data) = waiting.popleft()
            done[number] = (request, await asking.ask(server, data, hooks))
            hooks = None

    async def latecomer(request: Request) -> None:
        data = asking.body(server, request, ())
        await all_heard.wait()
        done[len(bodies)] = (request, await asking.ask(server, data))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(width):
            tasks.create_task(stream())
        if stage.late:
            tasks.create_task(latecomer(stage.late))
    return [done[number] for number in sorted(done)]
