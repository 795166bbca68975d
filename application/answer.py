"""The walk that every answer takes: lease, engine, splitter. One lifetime, nested `async with`."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from application.model_pool import ModelPool
from domain.chat import ChatCommand, TextCommand
from domain.events import ChatEvent
from domain.outputs import Markup
from domain.splitter import Splitter


async def answer(
    models: ModelPool,
    command: ChatCommand | TextCommand,
    splitter_for: Callable[[Markup], Splitter],
) -> AsyncGenerator[ChatEvent, None]:
    """The events of one answer, as they come. Raises any DomainError.

    Close it (`contextlib.aclosing`) to stop generating at once.
    """
    async with (
        models.lease(command.model) as engine,
        aclosing(engine.generate(command)) as outputs,
    ):
        splitter = splitter_for(engine.markup)
        async for output in outputs:
            for event in splitter.feed(output):
                yield event
            if splitter.finished:
                return
