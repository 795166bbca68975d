"""Whole generations of an engine."""

from contextlib import aclosing

from application.ports import Engine
from domain.chat import ChatCommand, TextCommand
from domain.outputs import EngineOutput


async def outputs(engine: Engine, command: ChatCommand | TextCommand) -> list[EngineOutput]:
    async with aclosing(engine.generate(command)) as generation:
        return [output async for output in generation]
