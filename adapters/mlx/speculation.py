"""Guessed steps: the next tokens of a few rows are guessed, and one pass of the model finds what it
says at all of these places. Worker thread only.

Every token is the model's own: drawn from its logits with the row's own draws. A guess only
decides whether the pass that gave it was of use, so the answer is the one without guesses.
"""

import time

from adapters.mlx.decode import DecodeBatch, Decoded
from adapters.mlx.guesser import Guesser
from adapters.mlx.request import Request
from domain.speculation import Payoff

_MOST_ROWS = 4
_UNKNOWN = Payoff()
_ANSWER = 128  # tokens, before any was seen
_WEIGHT = 0.2  # of each new answer
_WARMING = 2  # steps of a run of guessed ones that say nothing of the others, if there was to read


class Speculation:
    """Which steps are guessed, and how that goes."""

    def __init__(self, guesser: Guesser, decoding: DecodeBatch, pace: float) -> None:
        """pace: how many ordinary steps' time the guesser may read for between two of them."""
        self._guesser = guesser
        self._decoding = decoding
        self._pace = pace
        self._payoffs: dict[int, Payoff] = {}  # by the number of rows
        self._answer = float(_ANSWER)  # tokens, on average
        self._begun: float | None = None  # when the step before this one began,
        self._run = 0  # how many guessed ones it ended, from the one that made room for them,
        self._gave = 0  # and how many tokens it gave
        self.drafted = 0  # guesses so far
        self.accepted = 0

    def step(self, *, prompts: bool) -> list[Decoded] | None:
        """The tokens of a guessed step; None where an ordinary one is better, of which `gave` is
        to be told. prompts: some are being computed.
        """
        requests = [] if prompts else self._candidates()
        self._measure(requests)
        if not requests or not self._pays(requests) or not self._guesser.ready(requests):
            return None
        most = min(request.left for request in requests) - 1
        if most < 1:
            return None
        self._run += 1
        if not self._decoding.settled:
            return self.gave(self._decoding.settle())
        return self.gave(self._verified(requests, most))

    def _verified(self, requests: list[Request], most: int) -> list[Decoded]:
        guesses = self._guesser.guess(requests, most)
        decoded = self._decoding.verify(guesses)
        right = {one.request: one.more for one in reversed(decoded)}  # that of its first token
        self._guesser.judge(guesses.shape[1], right)
        self.drafted += guesses.size
        self.accepted += sum(right.values())
        return decoded

    def gave(self, decoded: list[Decoded]) -> list[Decoded]:
        """What came of the step."""
        self._gave = len(decoded)
        return decoded

    def read_on(self) -> None:
        """A while for the guesser, between two ordinary steps."""
        requests = self._candidates()
        if not requests or not self._pays(requests):
            return
        step = self._payoff(requests).plain.per_token
        if self._guesser.read_on(requests, self._pace * step):
            self._begun = None

    def interrupted(self) -> None:
        """Something else was done between two steps."""
        self._begun, self._run = None, 0

    def forget(self, request: Request) -> None:
        """It has left the batch."""
        self._begun, self._run = None, 0
        self._answer += _WEIGHT * (len(request.generated) - self._answer)
        self._guesser.forget(request)
        if not self._guesser.steady:  # the next text may be another kind
            self._payoffs = {rows: payoff.anew() for rows, payoff in self._payoffs.items()}

    def _candidates(self) -> list[Request]:
        """All requests, if they are few and guesses can be of use to each."""
        requests = self._decoding.requests
        few = len(requests) <= _MOST_ROWS
        return requests if few and all(map(self._can_guess, requests)) else []

    def _can_guess(self, request: Request) -> bool:
        if request.constraint or request.row.penalised:  # each token depends on the one before
            return False
        return self._guesser.can_guess(request)

    def _pays(self, requests: list[Request]) -> bool:
        expected = sum(min(request.left, self._answer) for request in requests) / len(requests)
        payoff = self._payoff(requests)
        if not payoff.pays(0.0, expected):
            return False
        return payoff.pays(self._guesser.delay(requests), expected)

    def _payoff(self, requests: list[Request]) -> Payoff:
        return self._payoffs.get(len(requests), _UNKNOWN)

    def _measure(self, requests: list[Request]) -> None:
        """From the beginning of a step to that of the next is what it took. What guesses cost
        begins with the step that launches no other, as they need its tokens, and ends with the
        ordinary one after them, which is launched but has none to read.
        """
        now = time.perf_counter()
        resumes = bool(self._run) and not self._gave
        if self._begun is not None and requests:
            rows, seconds = len(requests), now - self._begun
            if self._run > (_WARMING if self._guesser.steady else 0):
                per_row = self._gave / rows
                self._payoffs[rows] = self._payoff(requests).after_drafted(seconds, per_row)
            elif self._gave and not self._run:
                self._payoffs[rows] = self._payoff(requests).after_plain(seconds)
        self._begun = now if requests else None
        if resumes or not requests:
            self._run = 0
        self._gave = 0
