"""Several answers at once: to one prompt (`n`), or to several."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from domain.chat import ChatCommand, TextCommand
from domain.events import ChatAnswer, ChatEvent, Finished, assemble

Choice = tuple[int, ChatEvent]
Command = TypeVar("Command", ChatCommand, TextCommand)


def alternatives(command: Command, count: int) -> list[Command]:
    """`count` commands with one prompt, each with a seed of its own.

    The first has the seed that was given, so it says what it would say alone.
    """
    seed = command.sampling.seed
    if seed is None:
        return [command] * count
    return [
        replace(command, sampling=replace(command.sampling, seed=seed + n)) for n in range(count)
    ]


async def side_by_side(
    answers: Sequence[AsyncGenerator[ChatEvent, None]],
) -> AsyncGenerator[Choice, None]:
    """Every event with the index of its answer. The first failure ends them all.

    Closing it closes every answer.
    """
    if len(answers) == 1:
        async with aclosing(answers[0]) as answer:
            async for event in answer:
                yield 0, event
        return
    arrivals: asyncio.Queue[Choice | asyncio.Task[None]] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(n, a, arrivals)) for n, a in enumerate(answers)]
    for task in tasks:
        task.add_done_callback(arrivals.put_nowait)
    try:
        running = len(tasks)
        while running:
            arrival = await arrivals.get()
            if isinstance(arrival, asyncio.Task):
                arrival.result()
                running -= 1
            else:
                yield arrival
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def assemble_all(choices: AsyncGenerator[Choice, None], count: int) -> list[ChatAnswer]:
    """The answers in their order. Each is added up when it ends, so that many of them, and long
    ones, don't stop everyone else at the end. Closes `choices`.
    """
    events: list[list[ChatEvent]] = [[] for _ in range(count)]
    answers: dict[int, ChatAnswer] = {}
    async with aclosing(choices):
        async for index, event in choices:
            events[index].append(event)
            if isinstance(event, Finished):
                answers[index] = assemble(events[index])
                events[index].clear()
    return [answers[index] for index in range(count)]


async def _pump(
    index: int,
    answer: AsyncGenerator[ChatEvent, None],
    arrivals: "asyncio.Queue[Choice | asyncio.Task[None]]",
) -> None:
    async with aclosing(answer):
        async for event in answer:
            arrivals.put_nowait((index, event))
