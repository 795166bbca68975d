"""The first words between a server and an engine process."""

from typing import TypeVar

from adapters.isolated.messages import Logged, NotLoaded
from adapters.isolated.process import EngineProcess
from domain.errors import EngineFailed
from domain.models import ModelCard

T = TypeVar("T")


async def started(card: ModelCard) -> EngineProcess:
    """Raises EngineFailed."""
    try:
        return await EngineProcess.start(str(card.id))
    except OSError as error:  # no more files, processes or memory
        reason = f"No process for the engine of `{card.id}` can be started: {error.strerror}"
        raise EngineFailed(reason) from error


async def first_report(card: ModelCard, process: EngineProcess, kind: type[T], amid: str) -> T:
    """The answer to its first order. Raises EngineFailed, and what the process answers instead."""
    while True:
        match await process.channel.receive():
            case NotLoaded(error):
                raise error
            case Logged() as lines:
                lines.relay()
            case report if isinstance(report, kind):
                return report
            case _:
                fate = await process.fate()
                raise EngineFailed(f"The engine process of `{card.id}` ended {amid} ({fate}).")
