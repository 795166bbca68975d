"""What the async side and a worker thread share, and what they say to each other. No mlx."""

import asyncio
import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from application.ports import EngineStats
from domain.chat import ChatCommand, TextCommand
from domain.errors import DomainError
from domain.memory import LoadPlan
from domain.models import ModelCard
from domain.outputs import EngineOutput, Markup

Deliver = Callable[[EngineOutput | DomainError], None]


@dataclass(frozen=True, slots=True)
class Submit:
    """Generate, and hand every output to `deliver` on the event loop."""

    id: int
    command: ChatCommand | TextCommand
    deliver: Deliver


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody reads this request's outputs any more. Ids that are done are let pass."""

    id: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Drop every request, and wait: nobody is left to read."""


@dataclass(frozen=True, slots=True)
class Close:
    """Unload the model and end the thread; requests in flight get `error`, or ShuttingDown."""

    error: DomainError | None = None


Mail = Submit | Cancel | Halt | Close


@dataclass(frozen=True, slots=True)
class MlxOptions:
    """prefill_step_size: prompt tokens between two chances to decode, cancel or admit; None is a
    size that suits the device. prefill_pace: how many decode steps' time they may take while others
    decode; None is what suits the device. prefix_cache: keep states for prompts that begin alike,
    in what the KV reserve leaves over. prompt_lookup_tokens: the most that are guessed at a time
    where a text repeats itself; 0 is none. prefix_dir, prefix_disk_bytes: prefixes on disk as well,
    within so many bytes. max_cache_bytes: how much freed memory MLX keeps for reuse; None is a
    small share of the device's.
    """

    max_batch_size: int = 32
    prefill_step_size: int | None = None
    prefill_pace: float | None = None
    prefix_cache: bool = True
    prompt_lookup_tokens: int = 8
    prefix_dir: Path | None = None
    prefix_disk_bytes: int = 0
    max_cache_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the async side may know of a loaded model. footprint: bytes."""

    markup: Markup
    footprint: int


class Link:
    """Between one engine and its worker thread.

    The worker writes `failure`, `idle`, `heartbeat` and `stats`; the engine only reads them.
    idle: it waits for mail, and has nothing else to do.
    """

    def __init__(
        self,
        card: ModelCard,
        plan: LoadPlan,
        options: MlxOptions,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.card = card
        self.plan = plan
        self.options = options
        self.loaded: Future[Loaded] = Future()
        self.closed: Future[None] = Future()
        self.failure: DomainError | None = None
        self.idle = False
        self.heartbeat = time.monotonic()
        self.stats = EngineStats()
        self.mail: queue.SimpleQueue[Mail] = queue.SimpleQueue()
        self._loop = loop
        for outcome in (self.loaded, self.closed):  # the thread says it; who waits may leave
            outcome.set_running_or_notify_cancel()

    @property
    def busy(self) -> bool:
        """There is mail to read, or a request to work on."""
        return bool(self.stats.running or self.stats.waiting) or not self.mail.empty()

    def publish(self, outbox: list[tuple[Deliver, EngineOutput | DomainError]]) -> None:
        """One hop to the event loop for all of it."""
        try:
            self._loop.call_soon_threadsafe(_deliver, outbox)
        except RuntimeError:  # the loop is closed: nobody is left to read
            self.mail.put(Halt())


def _deliver(outbox: list[tuple[Deliver, EngineOutput | DomainError]]) -> None:
    for deliver, output in outbox:
        deliver(output)
