"""Guesses that need no other model: what followed the last tokens before. Worker thread only."""

from collections.abc import Mapping, Sequence

import mlx.core as mx

from adapters.mlx.request import Request
from domain.prompt_lookup import PromptLookup


class Lookups:
    """A `Guesser`."""

    steady = False

    def __init__(self, most: int) -> None:
        """most: guesses of one step."""
        self._most = most
        self._by_request: dict[Request, PromptLookup] = {}

    def can_guess(self, request: Request) -> bool:
        return True

    def delay(self, requests: Sequence[Request]) -> float:
        return 0.0

    def ready(self, requests: Sequence[Request]) -> bool:
        return all([self._of(request).count for request in requests])

    def guess(self, requests: Sequence[Request], most: int) -> mx.array:
        lookups = [self._of(request) for request in requests]
        count = min(most, *(lookup.count for lookup in lookups))
        return mx.array([lookup.guess(count) for lookup in lookups], dtype=mx.uint32)

    def judge(self, guessed: int, right: Mapping[Request, int]) -> None:
        for request, count in right.items():
            self._by_request[request].judge(guessed, count)

    def read_on(self, requests: Sequence[Request], seconds: float) -> bool:
        return False

    def forget(self, request: Request) -> None:
        self._by_request.pop(request, None)

    def _of(self, request: Request) -> PromptLookup:
        """With all that the request has said."""
        lookup = self._by_request.setdefault(request, PromptLookup(self._most))
        lookup.read(request.since(len(lookup)))
        return lookup
