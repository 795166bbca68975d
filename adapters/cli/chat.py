"""`portico chat`: the use case in-process, streamed to the terminal."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from adapters.cli.failing import MISUSED, fail
from adapters.cli.session import opened, read_id, read_settings, unrestricted
from adapters.container import Container
from adapters.settings import Settings
from domain.chat import ChatCommand, Message, Sampling
from domain.errors import DomainError, ModelNotFound
from domain.events import ChatEvent, ReasoningDelta, TextDelta, assemble
from domain.models import ModelId

Conversation = tuple[Message, ...]

_LEAVE = {"/exit", "/quit", "/bye"}


def run(
    config: Path | None,
    flags: dict[str, Any],
    *,
    model: str | None,
    system: str | None,
    temperature: float,
    max_tokens: int | None,
    think: bool,
) -> None:
    settings = read_settings(config, flags)
    name = model or settings.offered_default
    if name is None:
        fail("name a model, or set `default_model`.", MISUSED)
    chosen = read_id(name)
    opening: Conversation = (Message.system(system),) if system else ()
    try:
        turn = partial(
            ChatCommand,
            chosen,
            sampling=Sampling(temperature=temperature, max_tokens=max_tokens),
            template_options={"enable_thinking": True} if think else {},
        )
        _converse(settings, chosen, turn, opening)
    except ModelNotFound:
        fail(_where_to_find(settings, chosen))
    except DomainError as error:
        fail(str(error))
    except KeyboardInterrupt:
        pass


def _where_to_find(settings: Settings, model: ModelId) -> str:
    cards = asyncio.run(Container(settings=unrestricted(settings)).catalog().all())
    if any(card.id == model for card in cards):
        return f"`{model}` is on this machine, but not among your `available_models`."
    ways = f"`portico pull {model}` gets it"
    if not model.owner:
        ways = f"`portico models` lists what is, `portico search {model}` looks on the hub"
    return f"`{model}` is not on this machine; {ways}."


def _converse(
    settings: Settings,
    model: ModelId,
    turn: Callable[[Conversation], ChatCommand],
    said: Conversation,
) -> None:
    """Turn after turn, until the input ends. The prompt is read outside the loop, so that Ctrl-C
    ends it there as well.
    """
    console = Console(highlight=False)
    if sys.stdin.isatty():
        console.print("[dim]/exit or Ctrl-D to leave[/]")
    session = opened(settings)
    with asyncio.Runner() as runner:
        container = runner.run(session.__aenter__())
        try:
            runner.run(container.get_model()(model))  # before anyone types a question for nothing
            while (line := _ask(console)) is not None:
                asked = (*said, Message.user(line))
                try:
                    text = runner.run(_say(console, container.complete_chat()(turn(asked))))
                except DomainError as error:
                    if not sys.stdin.isatty():
                        raise
                    console.print(f"\n[red]{escape(str(error))}[/]")
                else:
                    said = (*asked, Message.assistant(text))
        finally:
            runner.run(session.__aexit__(None, None, None))


def _ask(console: Console) -> str | None:
    """The next line; None at the end. Without a terminal, all of the input is one message."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.read().decode("utf-8", "replace").strip() or None
    while True:
        try:
            line = console.input("[bold green]> [/]").strip()
        except EOFError:
            return None
        if line in _LEAVE:
            return None
        if line:
            return line


async def _say(console: Console, answer: AsyncGenerator[ChatEvent, None]) -> str:
    events: list[ChatEvent] = []
    thinking = False
    async with aclosing(answer):
        async for event in answer:
            events.append(event)
            if thinking and not isinstance(event, ReasoningDelta):
                console.print("\n")
            thinking = isinstance(event, ReasoningDelta)
            if isinstance(event, TextDelta):
                console.print(event.text, end="", markup=False)
            elif isinstance(event, ReasoningDelta):
                console.print(event.text, end="", style="dim", markup=False)
    console.print()
    return assemble(events).text
