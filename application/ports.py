"""What the use cases need from the world. Every adapter implements one of these."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from domain.chat import ChatCommand, TextCommand
from domain.models import ModelCard, ModelId
from domain.outputs import EngineOutput, Markup

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine is doing, and what it has done since it was loaded."""

    running: int = 0  # requests in the batch, prefilling or decoding
    waiting: int = 0  # requests that were accepted and have no place in the batch yet
    steps: int = 0  # decode steps; one step gives every running request a token
    prefilled_tokens: int = 0  # prompt tokens computed; those taken from a cache don't count
    generated_tokens: int = 0
    widest_batch: int = 0  # the most requests that ever ran at once


class Engine(Protocol):
    """One loaded model. Concurrent generate() calls share one batch."""

    @property
    def markup(self) -> Markup: ...

    @property
    def footprint(self) -> int:
        """Bytes of memory the loaded model holds, measured."""

    @property
    def heartbeat(self) -> float:
        """Monotonic time of the last sign of life, in seconds."""

    @property
    def alive(self) -> bool:
        """False once the engine broke or was closed; it can't be used again."""

    @property
    def slots(self) -> int:
        """How many requests run at once; the others wait."""

    @property
    def stats(self) -> EngineStats: ...

    def generate(self, command: ChatCommand | TextCommand) -> AsyncGenerator[EngineOutput, None]:
        """PromptProgress, Pieces, one End. Closing it at any point frees its place.

        Raises ContextOverflow or InvalidRequest before its first output, EngineFailed or
        ShuttingDown at any time.
        """

    async def close(self) -> None:
        """Free the memory. Requests in flight get ShuttingDown. Harmless when repeated."""


class EngineLoader(Protocol):
    async def load(self, card: ModelCard) -> Engine:
        """Raises EngineFailed, with a reason a user can act on."""


class ModelCatalog(Protocol):
    """The models that could be loaded. Never touches the network."""

    async def all(self) -> tuple[ModelCard, ...]: ...

    async def find(self, model: ModelId) -> ModelCard:
        """Raises ModelNotFound."""
