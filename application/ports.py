"""What the use cases need from the world. Every adapter implements one of these."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from domain.chat import ChatCommand, TextCommand
from domain.conversion import Conversion
from domain.errors import DomainError
from domain.memory import LoadPlan, MemoryProfile
from domain.models import DiskUse, FoundModel, ModelCard, ModelId, PullProgress
from domain.outputs import EngineOutput, Markup

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine is doing, and what it has done since it was loaded."""

    running: int = 0  # requests in the batch, prefilling or decoding
    waiting: int = 0  # requests that were accepted and have no place in the batch yet
    steps: int = 0  # decode steps; one step gives every running request a token or more
    prefilled_tokens: int = 0  # prompt tokens computed; those taken from a cache don't count
    generated_tokens: int = 0
    widest_batch: int = 0  # the most requests that ever ran at once
    kv_bytes: int = 0  # what the running requests hold in the KV reserve
    preemptions: int = 0  # times a request gave its place up, because the reserve was full
    drafted_tokens: int = 0  # guesses, of a draft model or from the text itself
    accepted_tokens: int = 0  # those of them that were right


class Engine(Protocol):
    """One loaded model. Concurrent generate() calls share one batch."""

    @property
    def markup(self) -> Markup: ...

    @property
    def footprint(self) -> int:
        """Bytes of the loaded weights, measured. The reserve for requests comes on top."""

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

    async def close(self, error: DomainError | None = None) -> None:
        """Free the memory. Requests in flight get `error`, or ShuttingDown. Harmless when
        repeated.
        """


class EngineLoader(Protocol):
    @property
    def memory(self) -> int:
        """Bytes that models may safely use on this device, all of them together."""

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """What the model would need, from its files alone; the weights are not read.

        Raises InvalidRequest when its cache can't be kept at `kv_bits`, else EngineFailed.
        """

    async def load(self, card: ModelCard, plan: LoadPlan) -> Engine:
        """The engine keeps its requests within the plan. Raises EngineFailed, with a reason a
        user can act on, and InvalidRequest as `profile` does. Cancelled, it ends once the memory
        that it took is free: at once where a process can be killed.
        """


class ModelCatalog(Protocol):
    """The models that could be loaded. Never touches the network."""

    async def all(self) -> tuple[ModelCard, ...]: ...

    async def find(self, model: ModelId) -> ModelCard:
        """Raises ModelNotFound."""

    async def remove(self, model: ModelId) -> int:
        """Delete it from the cache, unfinished downloads included, or from the folder of the user's
        own models; the bytes that were freed.

        Raises ModelNotFound, and InvalidRequest for models that are elsewhere (a folder that was
        configured, or what comes with Portico).
        """

    async def disk_use(self) -> DiskUse: ...

    def invalidate(self) -> None:
        """What is on the disk has changed: look again before the next answer."""


class ModelSource(Protocol):
    """Where models come from: a hub. The only port that touches the network."""

    async def search(self, text: str, limit: int) -> tuple[FoundModel, ...]:
        """MLX models whose names match, the most downloaded first. Raises HubFailed."""

    def pull(self, model: ModelId, revision: str | None) -> AsyncGenerator[PullProgress, None]:
        """Download into the cache; the last progress is DONE. What is there already is not
        fetched again. Closing it stops the download, which a later pull resumes.

        The model is in no catalog until it is whole. Raises HubFailed, and InvalidRequest for
        what can't be a revision.
        """


@dataclass(frozen=True, slots=True)
class PullOrder:
    """A download that was asked for, as it is written down until it ends.

    restarts: servers in a row that went on with it, and got no further.
    """

    id: str
    model: ModelId
    revision: str | None
    restarts: int = 0


class PullJournal(Protocol):
    """Downloads that outlive their server. Raises nothing: without it they are only forgotten."""

    def claim(self) -> tuple[PullOrder, ...]:
        """Take over what servers left that live no more, in the order of their ids."""

    def write(self, order: PullOrder) -> None:
        """In place of what is written of the same id."""

    def erase(self, job: str) -> None:
        """It has ended. Harmless when it is not written down."""

    def close(self) -> None:
        """Leave what is left to the next server."""


class ModelConverter(Protocol):
    def convert(self, card: ModelCard, target: Path, conversion: Conversion) -> None:
        """Write a converted copy to the folder `target`, which appears once it is whole.

        Blocks the thread that calls, and never touches the network. Raises InvalidRequest (the
        target is there already, or nothing of the model can be converted so), ModelUnusable or
        EngineFailed.
        """
