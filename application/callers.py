"""Those who hold API keys: what each may do, and what is left of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from application.choices import Choice
from application.ports import Clock
from domain.access import Access
from domain.errors import RateLimited
from domain.events import Finished, Usage
from domain.outputs import PromptProgress
from domain.rate_limits import SlidingWindow


@dataclass(frozen=True, slots=True)
class Allowance:
    """What of one limit is left. reset: seconds until all of it is there again."""

    unit: str  # `requests` or `tokens`
    limit: int
    remaining: int
    reset: float


class Caller:
    """One key's owner. Not thread-safe: it belongs to the event loop."""

    def __init__(self, access: Access, clock: Clock) -> None:
        self.access = access
        self._clock = clock
        self._requests = _window(access.requests_per_minute)
        self._tokens = _window(access.tokens_per_minute)

    def begin_request(self) -> None:
        """Count a request. Raises RateLimited, and then does not count it."""
        if self._requests:
            self._admit(self._requests, "requests")
            self._requests.record(self._clock(), 1)

    def metered(
        self, choices: AsyncGenerator[Choice, None], per_prompt: int, expected: int
    ) -> AsyncGenerator[Choice, None]:
        """The same choices. What they are expected to cost, in tokens, is held while they run, and
        more as soon as it turns out to be more; at the end, whichever it is, what they did cost is
        charged.

        per_prompt: how many choices share a prompt, which is charged once. The first step raises
        RateLimited when not so much is left; a request that is expected to cost more than the
        limit needs all of it.
        """
        if self._tokens is None:
            return choices
        held = _Held(self._tokens, min(expected, self._tokens.limit))
        return self._metered(choices, held, _Meter(per_prompt))

    async def _metered(
        self, choices: AsyncGenerator[Choice, None], held: "_Held", meter: "_Meter"
    ) -> AsyncGenerator[Choice, None]:
        async with aclosing(choices):
            self._admit(held.tokens, "tokens", held.amount)
            held.begin()
            try:
                async for choice in choices:
                    meter.count(choice)
                    held.raise_to(meter.total)
                    yield choice
            finally:
                held.settle(self._clock(), meter.total)

    def allowances(self) -> list[Allowance]:
        """Of the limits that there are."""
        now = self._clock()
        windows = (("requests", self._requests), ("tokens", self._tokens))
        return [
            Allowance(unit, window.limit, window.remaining(now), window.reset(now))
            for unit, window in windows
            if window
        ]

    def _admit(self, window: SlidingWindow, unit: str, amount: int = 1) -> None:
        wait = window.wait(self._clock(), amount)
        if wait > 0:
            raise RateLimited(self.access.name, window.limit, unit, wait, amount)


class _Held:
    """What one request keeps from others while it runs."""

    def __init__(self, tokens: SlidingWindow, amount: int) -> None:
        self.tokens = tokens
        self.amount = amount

    def begin(self) -> None:
        self.tokens.hold(self.amount)

    def raise_to(self, amount: int) -> None:
        if amount > self.amount:
            self.tokens.hold(amount - self.amount)
            self.amount = amount

    def settle(self, now: float, cost: int) -> None:
        self.tokens.hold(-self.amount)
        self.tokens.record(now, cost)


class _Meter:
    """Tokens of one request: as its usage says; of choices that are cut short, what is known."""

    def __init__(self, per_prompt: int) -> None:
        self._per_prompt = per_prompt
        self._usages: dict[int, Usage] = {}
        self._prompts: dict[int, int] = {}
        self._deltas: dict[int, int] = {}
        self.total = 0

    def count(self, choice: Choice) -> None:
        index, event = choice
        before = self._tokens(index)
        match event:
            case PromptProgress():
                self._prompts[index] = event.total
            case Finished():
                self._usages[index] = event.usage
            case _:
                self._deltas[index] = self._deltas.get(index, 0) + 1
        self.total += self._tokens(index) - before

    def _tokens(self, index: int) -> int:
        usage = self._usages.get(index) or Usage(
            self._prompts.get(index, 0), self._deltas.get(index, 0)
        )
        shares_prompt = index % self._per_prompt != 0
        return usage.completion_tokens + (0 if shares_prompt else usage.prompt_tokens)


def _window(limit: int | None) -> SlidingWindow | None:
    return None if limit is None else SlidingWindow(limit)
