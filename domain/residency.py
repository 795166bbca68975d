"""Who may load, who must go, who waits: the memory policy of the model pool. All in bytes."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from domain.memory import LoadPlan, MemoryNeed
from domain.models import ModelId
from domain.sizes import size


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that holds memory, loaded or loading."""

    id: ModelId
    need: int
    last_used: float  # any clock that only moves forward
    leased: bool = False
    pinned: bool = False

    @property
    def evictable(self) -> bool:
        return not (self.leased or self.pinned)


@dataclass(frozen=True, slots=True)
class Admit:
    """Load it, after these have gone, in this order."""

    evict: tuple[ModelId, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """It will fit once leases end."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never fit."""


def plan_admission(
    residents: Collection[Resident], need: int, budget: int
) -> Admit | Wait | Refuse:
    """Decide on a model that needs `need` bytes, under `budget` bytes in all.

    Evicts the least recently used first, no more than needed, never a leased or pinned one.
    """
    if need > room_at_most(residents, budget):
        return Refuse()
    missing = need + sum(r.need for r in residents) - budget
    evict: list[ModelId] = []
    for resident in sorted(residents, key=lambda r: r.last_used):
        if missing <= 0:
            break
        if resident.evictable:
            evict.append(resident.id)
            missing -= resident.need
    if missing > 0:
        return Wait()
    return Admit(tuple(evict))


def room_at_most(residents: Collection[Resident], budget: int) -> int:
    """What a model could have if all went that can ever go."""
    return budget - sum(r.need for r in residents if r.pinned)


class Fit(StrEnum):
    """Whether a model could be loaded."""

    NOW = "now"
    AFTER_EVICTIONS = "after_evictions"
    AFTER_REQUESTS = "after_requests"  # that run on models which would have to go
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model would need, and what stands in its way. Sizes in bytes, contexts in tokens."""

    model: ModelId
    plan: LoadPlan
    own_context: int
    budget: int
    in_use: int
    freeable: int  # by evicting models that are idle
    pinned: int
    fit: Fit
    evict: tuple[ModelId, ...] = ()

    @property
    def need(self) -> MemoryNeed:
        return self.plan.need

    @property
    def longest_context(self) -> int:
        """The longest context at which one request could ever fit; 0 for none."""
        return self.plan.profile.longest_context(self._room, self.own_context)

    @property
    def text(self) -> str:
        """The numbers, and what to do about them, for a user's eyes."""
        return f"{self.numbers} {self.verdict}"

    @property
    def numbers(self) -> str:
        """Need, budget, in use, and what could be freed."""
        return (
            f"The model `{self.model}` needs {size(self.need.total)} of memory "
            f"({size(self.need.weights)} for its weights, {size(self.need.kv_cache)} for "
            f"{_requests(self.plan.concurrency)} of {self.plan.context_length} tokens, "
            f"{size(self.need.prefill)} for prefill). The budget is {size(self.budget)}, of which "
            f"{size(self.in_use)} is in use and {size(self.freeable)} could be freed by evicting "
            "idle models."
        )

    @property
    def verdict(self) -> str:
        match self.fit:
            case Fit.NOW:
                return "It fits now."
            case Fit.AFTER_EVICTIONS:
                going = ", ".join(f"`{model}`" for model in self.evict)
                return f"It fits once {going} has been evicted."
            case Fit.AFTER_REQUESTS:
                return "It fits once requests to other models have ended."
            case Fit.NEVER:
                return f"It can't fit: {' or '.join(self._ways)}."

    @property
    def _ways(self) -> list[str]:
        """Each of them would be enough."""
        ways = [f"raise `memory_budget_gb` (by {size(self.need.total - self._room)} or more)"]
        if self.need.total <= self.budget:
            ways.append(f"unpin a model ({size(self.pinned)} is pinned)")
        ways += self._smaller_reserves
        if len(ways) == 1:
            if self.need.weights + self.need.prefill > self._room >= self.need.weights:
                ways.append("lower `prefill_step_size`")
            ways.append("choose a smaller or more quantised model")
        return ways

    @property
    def _smaller_reserves(self) -> list[str]:
        plan, profile = self.plan, self.plan.profile
        ways: list[str] = []
        requests = profile.most_requests(self._room, plan.context_length)
        if 0 < requests < plan.concurrency:
            ways.append(f"lower `kv_concurrency` to {requests}")
        context = profile.longest_context(self._room, plan.context_length, plan.concurrency)
        if 0 < context < plan.context_length:
            ways.append(f"lower `context_length` to {context}")
        if not ways and 0 < self.longest_context < plan.context_length:
            fewer = "`kv_concurrency` to 1 and " if plan.concurrency > 1 else ""
            ways.append(f"lower {fewer}`context_length` to {self.longest_context}")
        return ways

    @property
    def _room(self) -> int:
        return self.budget - self.pinned


def estimate(
    model: ModelId, plan: LoadPlan, own_context: int, residents: Collection[Resident], budget: int
) -> Estimate:
    """What plan_admission would say, with the numbers that it looked at."""
    others = [resident for resident in residents if resident.id != model]
    decision = plan_admission(others, plan.need.total, budget)
    match decision:
        case Admit(()):
            fit, evict = Fit.NOW, ()
        case Admit(evict):
            fit = Fit.AFTER_EVICTIONS
        case Wait():
            fit, evict = Fit.AFTER_REQUESTS, ()
        case Refuse():
            fit, evict = Fit.NEVER, ()
    return Estimate(
        model,
        plan,
        own_context,
        budget,
        in_use=sum(r.need for r in others),
        freeable=sum(r.need for r in others if r.evictable),
        pinned=sum(r.need for r in others if r.pinned),
        fit=fit,
        evict=evict,
    )


def _requests(count: int) -> str:
    return "one request" if count == 1 else f"{count} requests"
