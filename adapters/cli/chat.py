"""`portico chat`: the use case in-process, streamed to the terminal."""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from adapters.cli.session import opened, read_settings
from adapters.settings import Settings
from application.complete_chat import CompleteChat
from domain.chat import ChatCommand, Message, Sampling
from domain.errors import DomainError
from domain.events import ChatEvent, ReasoningDelta, TextDelta, assemble
from domain.models import ModelId

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
        typer.echo("portico: name a model, or set `default_model`.", err=True)
        raise typer.Exit(2)
    try:
        command = ChatCommand(
            ModelId.parse(name),
            (Message.system(system or ""),),
            Sampling(temperature=temperature, max_tokens=max_tokens),
            template_options={"enable_thinking": True} if think else {},
        )
        asyncio.run(_converse(settings, replace(command), keeps_system=system is not None))
    except DomainError as error:
        typer.echo(f"portico: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        pass


async def _converse(settings: Settings, opening: ChatCommand, *, keeps_system: bool) -> None:
    """Turn after turn, until the input ends."""
    console = Console(highlight=False)
    messages = opening.messages if keeps_system else ()
    if sys.stdin.isatty():
        console.print(f"[bold]{opening.model}[/] - /exit or Ctrl-D to leave, Ctrl-C to interrupt")
    async with opened(settings) as container:
        complete = container.complete_chat()
        while (said := await asyncio.to_thread(_ask, console)) is not None:
            messages = (*messages, Message.user(said))
            text = await _say(console, complete, replace(opening, messages=messages))
            messages = (*messages, Message.assistant(text))


def _ask(console: Console) -> str | None:
    """The next line; None at the end. Without a terminal, all of the input is one message."""
    if not sys.stdin.isatty():
        return sys.stdin.read().strip() or None
    while True:
        try:
            line = console.input("[bold green]> [/]").strip()
        except EOFError:
            return None
        if line in _LEAVE:
            return None
        if line:
            return line


async def _say(console: Console, complete: CompleteChat, command: ChatCommand) -> str:
    events: list[ChatEvent] = []
    async with aclosing(complete(command)) as answer:
        async for event in answer:
            events.append(event)
            if isinstance(event, TextDelta):
                console.print(event.text, end="", markup=False)
            elif isinstance(event, ReasoningDelta):
                console.print(event.text, end="", style="dim", markup=False)
    console.print()
    return assemble(events).text
