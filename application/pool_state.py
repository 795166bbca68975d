"""The model pool as others see it: its limits, its state at a moment, and what happens in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from application.ports import EngineStats
from domain.memory import LoadPlan, ModelPolicy
from domain.models import ModelCard, ModelId, ModelState

_SLOWEST_DISK = 20e6  # bytes of weights a second; USB 2 has more, and so has a share over Wi-Fi


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """memory_budget: bytes for all models together. max_waiting: requests that may wait, for
    memory or for a place in a batch, of all models together. slots: requests of one model that
    run at once. load_timeout: seconds for a load, besides reading the weights. policies: for
    single models, instead of `policy`.
    """

    memory_budget: int
    max_waiting: int = 1024
    retry_after: float = 1.0  # seconds, what a refused client is told to wait
    hang_timeout: float = 30.0  # seconds of an engine's silence amid work that count as a hang
    load_timeout: float = 300.0
    slots: int = 32
    policy: ModelPolicy = field(default_factory=ModelPolicy)
    policies: Mapping[ModelId, ModelPolicy] = field(default_factory=dict)

    def policy_of(self, model: ModelId) -> ModelPolicy:
        return self.policies.get(model, self.policy)

    def longest_load(self, weights: int) -> float:
        """Seconds after which a load of so many bytes counts as hung: more than a slow one takes,
        as nobody can tell a thread that reads from one that waits for a disk.
        """
        return self.load_timeout + weights / _SLOWEST_DISK


@dataclass(frozen=True, slots=True)
class ResidentSnapshot:
    """One model that holds memory, at a moment in time."""

    card: ModelCard  # of the revision in memory; the catalog may have another one by now
    state: ModelState
    plan: LoadPlan
    need: int  # bytes, as the ledger counts it: measured once it is loaded
    leases: int
    waiting: int  # requests that wait for its load
    idle: float  # seconds since its last request ended; 0 while it has one
    silence: float  # seconds since the engine's last sign of life
    pinned: bool
    idle_ttl: float | None  # seconds after which it leaves when idle
    stats: EngineStats

    @property
    def id(self) -> ModelId:
        return self.card.id


@dataclass(frozen=True, slots=True)
class FailingModel:
    """A model whose engine died, and that has not ended a request well since."""

    id: ModelId
    deaths: int  # in a row
    retry_after: float  # seconds until it may be loaded again
    reason: str  # of its last death


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at a moment in time."""

    residents: tuple[ResidentSnapshot, ...]
    waiting: int  # requests that wait for memory
    memory_budget: int  # bytes
    leaving: int = 0  # bytes of models on their way out
    closing: bool = False  # no new leases
    hung: tuple[ModelId, ...] = ()  # whose engines make no progress, and still hold their memory
    failing: tuple[FailingModel, ...] = ()

    @property
    def memory_used(self) -> int:
        return self.leaving + sum(resident.need for resident in self.residents)

    @property
    def leases(self) -> int:
        return sum(resident.leases for resident in self.residents)

    def find(self, model: ModelId) -> ResidentSnapshot | None:
        return next((resident for resident in self.residents if resident.id == model), None)


class PoolEventKind(StrEnum):
    """What can happen to a model in the pool."""

    LOADING = "loading"
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    DIED = "died"
    HUNG = "hung"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"
    PINNED = "pinned"
    UNPINNED = "unpinned"


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """Something that happened, and the ledger after it, in bytes."""

    kind: PoolEventKind
    model: ModelId
    reason: str
    memory_used: int
    memory_budget: int
