"""What a server and an engine process say to each other."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from application.ports import EngineLoader, EngineStats
from domain.chat import ChatCommand, TextCommand
from domain.errors import DomainError
from domain.memory import LoadPlan, MemoryProfile
from domain.models import ModelCard
from domain.outputs import EngineOutput, Markup

MakeLoader = Callable[
    [], EngineLoader
]  # picklable: a class or a function of a module, or a partial


@dataclass(frozen=True, slots=True)
class Profile:
    """The only order: say what the model needs, from its files, and end."""

    make_loader: MakeLoader
    card: ModelCard
    kv_bits: int | None
    log_level: int


@dataclass(frozen=True, slots=True)
class Profiled:
    """The answer to Profile."""

    profile: MemoryProfile


@dataclass(frozen=True, slots=True)
class Load:
    """The first order. pulse: seconds between two signs of life. log_level: as in `logging`."""

    make_loader: MakeLoader
    card: ModelCard
    plan: LoadPlan
    pulse: float
    log_level: int


@dataclass(frozen=True, slots=True)
class Submit:
    """Generate; what is said carries the `id`."""

    id: int
    command: ChatCommand | TextCommand


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody reads this request's outputs any more. Ids that are done are let pass."""

    id: int


@dataclass(frozen=True, slots=True)
class Close:
    """Unload the model and end; requests in flight get `error`, or ShuttingDown."""

    error: DomainError | None


Order = Profile | Load | Submit | Cancel | Close


@dataclass(frozen=True, slots=True)
class Loaded:
    """The answer to Load. footprint: bytes."""

    markup: Markup
    footprint: int
    slots: int


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """The other answer to Load, and to Profile; the process ends."""

    error: DomainError


@dataclass(frozen=True, slots=True)
class Said:
    """All that was said since the last time, by request; a bare str is a Piece without a score.

    silence: seconds since the engine's last sign of life. alive: it can go on.
    """

    outputs: list[tuple[int, str | EngineOutput | DomainError]]
    stats: EngineStats
    silence: float
    alive: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """Lines for the server's log; a traceback has many."""

    name: str
    level: int
    text: str

    def relay(self) -> None:
        """Log them here, by the server's rules."""
        for line in self.text.splitlines():
            logging.getLogger(self.name).log(self.level, "%s", line)


Report = Profiled | Loaded | NotLoaded | Said | Logged
