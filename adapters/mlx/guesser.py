"""Where guesses come from: a draft model, or the text itself. Worker thread only."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import mlx.core as mx

from adapters.mlx.request import Request


class Guesser(Protocol):
    """Guesses for a few requests, which all decode."""

    @property
    def steady(self) -> bool:
        """How often it is right is of the model, and not of the single text. The first guesses
        after ordinary steps then take longer than the others, as there is something to read.
        """

    def can_guess(self, request: Request) -> bool:
        """At any time."""

    def delay(self, requests: Sequence[Request]) -> float:
        """Seconds until it can guess for all."""

    def ready(self, requests: Sequence[Request]) -> bool:
        """It can guess for all of them now."""

    def guess(self, requests: Sequence[Request], most: int) -> mx.array:
        """Their next tokens: [requests, count], with 1 to `most` of each."""

    def judge(self, guessed: int, right: Mapping[Request, int]) -> None:
        """So many of the guesses were right. Before the requests hear of any."""

    def read_on(self, requests: Sequence[Request], seconds: float) -> bool:
        """Between two ordinary steps, for about so long; whether there was something to read."""

    def forget(self, request: Request) -> None:
        """It has left the batch."""
