"""What a model's memory is made of, and how it grows with context and concurrency. All in bytes."""

from dataclasses import dataclass

from domain.errors import InvalidRequest
from domain.speculation import Draft

CACHE_STEP = 256  # tokens; mlx-lm's KV caches grow by this many at a time

_MAX_CONCURRENCY = 1024
_LEAST_CONTEXT = 4096  # tokens; a model that can't have even these doesn't fit
_RESERVE_SHARE = 4  # by default the KV reserve grows to one part in so many of the budget


def whole_steps(tokens: int) -> int:
    """`tokens`, rounded up to what a KV cache allocates."""
    return -(-tokens // CACHE_STEP) * CACHE_STEP


@dataclass(frozen=True, slots=True)
class CacheLayers:
    """Layers whose caches grow alike; sizes are for one request and all of these layers together.

    window: the most tokens they keep; None keeps all. fixed: state that does not grow.
    """

    bytes_per_token: int = 0
    window: int | None = None
    fixed: int = 0

    def size(self, tokens: int) -> int:
        kept = whole_steps(tokens)
        if self.window is not None:
            kept = min(kept, self.window)
        return self.fixed + self.bytes_per_token * kept


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What one loaded model needs: what it is, what its requests may hold, and what comes and
    goes while a prompt is computed.
    """

    weights: int
    kv_cache: int = 0
    prefill: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.prefill


@dataclass(frozen=True, slots=True)
class MemoryProfile:
    """How a model's need grows, known before it is loaded.

    prefill: what a slice of prefill needs beside the caches, whatever the context.
    prefill_per_token: what it needs for each token of the context that it attends to.
    """

    weights: int
    layers: tuple[CacheLayers, ...] = ()
    prefill: int = 0
    prefill_per_token: int = 0

    def kv(self, tokens: int, rows: int = 1) -> int:
        """The caches of `rows` requests, the longest of them of `tokens`: a batch is padded."""
        return rows * sum(group.size(tokens) for group in self.layers)

    def beside(self, other: "MemoryProfile") -> "MemoryProfile":
        """Of two models that are loaded together, each with caches of its own for every request."""
        return MemoryProfile(
            self.weights + other.weights,
            (*self.layers, *other.layers),
            self.prefill + other.prefill,
            self.prefill_per_token + other.prefill_per_token,
        )

    def need(self, context_length: int, concurrency: int) -> MemoryNeed:
        """For so many requests at once, all of them of full length."""
        return MemoryNeed(
            self.weights,
            self.kv(context_length, concurrency),
            self.prefill + self.prefill_per_token * context_length,
        )

    def longest_context(self, room: int, at_most: int, concurrency: int = 1) -> int:
        """The longest context, in tokens, at which so many requests fit in `room`; 0 for none."""
        if self.need(at_most, concurrency).total <= room:
            return at_most
        low, high = 0, at_most // CACHE_STEP
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.need(middle * CACHE_STEP, concurrency).total <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        return low * CACHE_STEP

    def most_requests(self, room: int, context_length: int) -> int:
        """How many requests of this length fit in `room`."""
        left = room - self.need(context_length, 0).total
        one = self.kv(context_length)
        return max(left // one, 0) if one else (_MAX_CONCURRENCY if left >= 0 else 0)


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """What an operator wants of one model, or of all.

    pinned: never evicted. idle_ttl: seconds without a request after which it leaves.
    context_length: the most tokens of one request; None is the model's own, or what fits.
    concurrency: how many requests of full length the KV reserve holds; None is what fits well.
    kv_bits: keep the KV cache quantised to so many bits.
    """

    pinned: bool = False
    idle_ttl: float | None = None
    context_length: int | None = None
    concurrency: int | None = None
    kv_bits: int | None = None

    def __post_init__(self) -> None:
        if self.context_length is not None and self.context_length < 1:
            raise InvalidRequest("`context_length` must be at least 1.", "context_length")
        if self.concurrency is not None and not 1 <= self.concurrency <= _MAX_CONCURRENCY:
            raise InvalidRequest(
                f"`concurrency` must be between 1 and {_MAX_CONCURRENCY}.", "concurrency"
            )
        if self.kv_bits not in {None, 4, 8}:
            raise InvalidRequest("`kv_bits` must be 4 or 8.", "kv_bits")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How a model is to be loaded: the promise that the pool's ledger keeps.

    draft: the model that is loaded beside it; its memory is part of the profile.
    """

    profile: MemoryProfile
    context_length: int  # tokens, the most that one request may come to hold
    concurrency: int
    kv_bits: int | None = None
    draft: Draft | None = None

    @property
    def need(self) -> MemoryNeed:
        return self.profile.need(self.context_length, self.concurrency)


def plan_load(
    profile: MemoryProfile, policy: ModelPolicy, own_context: int, room: int, slots: int
) -> LoadPlan:
    """Fill in what the policy leaves open.

    own_context: the model's own, in tokens. room: bytes that it could have at the very most.
    slots: requests that run at once. The plan of a model that can't fit needs more than `room`.
    """
    if policy.context_length is not None:
        context = min(policy.context_length, own_context)
    else:
        least = min(own_context, _LEAST_CONTEXT)
        context = max(profile.longest_context(room, own_context), least)
    if policy.concurrency is not None:
        concurrency = min(policy.concurrency, slots)
    else:
        most = profile.most_requests(room, context)
        one = profile.kv(context)
        share = room // _RESERVE_SHARE // one if one else slots
        concurrency = max(1, min(slots, most, share))
    return LoadPlan(profile, context, concurrency, policy.kv_bits)
