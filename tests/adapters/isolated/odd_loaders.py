"""Loaders for engine processes that go wrong in ways that no script has."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

from adapters.scripted.engine import Script, ScriptedEngine, ScriptedLoader
from application.ports import Engine
from domain.chat import ChatCommand, TextCommand
from domain.errors import ModelUnusable
from domain.memory import LoadPlan, MemoryProfile
from domain.models import ModelCard
from domain.outputs import EngineOutput, PromptProgress


class DyingLoader(ScriptedLoader):
    """Its process is killed while it loads."""

    async def load(self, card: ModelCard, plan: LoadPlan) -> ScriptedEngine:
        os.kill(os.getpid(), signal.SIGKILL)
        return await super().load(card, plan)


class FragileLoader(ScriptedLoader):
    """Its process dies of the files of `bad`, never reads those of `slow`, and refuses `none`.

    looks: a file with a line for each look at files.
    """

    def __init__(self, looks: Path) -> None:
        super().__init__(Script())
        self._looks = looks

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        with self._looks.open("a") as looks:
            looks.write(f"{os.getpid()}\n")
        match str(card.id):
            case "bad":
                os.abort()
            case "slow":
                await asyncio.sleep(1000)
            case "none":
                raise ModelUnusable("It is damaged.")
        return await super().profile(card, kv_bits)


class ChattyLoader(ScriptedLoader):
    """Logs, and prints where only answers belong."""

    async def load(self, card: ModelCard, plan: LoadPlan) -> ScriptedEngine:
        logging.getLogger("portico.test").warning("loading %s in %d", card.id, os.getpid())
        logging.getLogger("portico.test").debug("nobody wants to know")
        print("a stray word")
        return await super().load(card, plan)


class WritingLoader(ScriptedLoader):
    """Leaves its process id in a file, and takes its time."""

    def __init__(self, file: Path, seconds: float) -> None:
        super().__init__(Script(token_delay=0.05, reply="a " * 200))
        self._file = file
        self._seconds = seconds

    async def load(self, card: ModelCard, plan: LoadPlan) -> ScriptedEngine:
        self._file.write_text(str(os.getpid()))
        await asyncio.sleep(self._seconds)
        return await super().load(card, plan)


class BuggyEngine(ScriptedEngine):
    """Raises what no engine should."""

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        yield PromptProgress(1, 1)
        raise ZeroDivisionError("a bug")


class BuggyLoader(ScriptedLoader):
    async def load(self, card: ModelCard, plan: LoadPlan) -> Engine:  # type: ignore[override]
        return BuggyEngine(card, plan, Script())
