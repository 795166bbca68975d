"""The walk that every answer takes: lease, engine, splitter. One lifetime, nested `async with`."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from application.model_pool import ModelPool
from application.ports import Clock
from application.record import Observer, Observers, observed
from domain.chat import ChatCommand, TextCommand
from domain.events import ChatEvent, Finished
from domain.outputs import Markup
from domain.splitter import Splitter


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told of answers, and what times them."""

    observer: Observer
    clock: Clock = time.monotonic


UNWATCHED = Watch(Observers())


async def answer(
    models: ModelPool,
    command: ChatCommand | TextCommand,
    splitter_for: Callable[[Markup], Splitter],
    watch: Watch,
) -> AsyncGenerator[ChatEvent, None]:
    """The events of one answer, as they come. Raises any DomainError.

    Close it (`contextlib.aclosing`) to stop generating at once.
    """
    with observed(command.model, watch.clock, watch.observer) as record:
        async with (
            models.lease(command.model) as engine,
            aclosing(engine.generate(command)) as outputs,
        ):
            record.leased = watch.clock()
            splitter = splitter_for(engine.markup)
            async for output in outputs:
                if record.note(output):
                    watch.observer.first_token(record)
                for event in splitter.feed(output):
                    if isinstance(event, Finished):
                        record.reason = event.reason
                        yield replace(event, timings=record.timings)
                    else:
                        yield event
                if splitter.finished:
                    return
