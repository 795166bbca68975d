"""The decode batch: every step gives each row a token. Worker thread only.

mlx-lm's own GenerationBatch normalises and hands over the log-probabilities of every row at
every step, and samples row by row. Here rows cost what they ask for: one draw for all of them,
log-probabilities, penalties and grammars only where wanted, and one transfer to the host. The
next step is launched before this one's tokens are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from adapters.mlx.faults import attempt
from adapters.mlx.request import Request
from adapters.mlx.rows import Rows
from adapters.mlx.sampling import BatchSampler
from domain.batching import shared_prefix
from domain.errors import DomainError


@dataclass(frozen=True, slots=True)
class Decoded:
    """logprobs: [vocabulary], for requests that asked for scores. more: how many more tokens of
    the request came of the same step.
    """

    request: Request
    token: int
    logprobs: mx.array | None
    more: int = 0


class DecodeBatch:
    """Requests, and a row of KV caches for each."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.requests: list[Request] = []
        self._inputs = mx.array([], dtype=mx.uint32)
        self._undrawn: mx.array | None = None  # logits of the step under way
        self._logprobs: dict[Request, mx.array] = {}
        self._fresh: set[Request] = set()
        self._sampler = BatchSampler([])
        self._launched = False
        self.faults: dict[Request, DomainError] = {}  # of requests that can't go on

    def join(self, requests: Sequence[Request], caches: list[Any]) -> None:
        """caches: batched, one for each layer, with all tokens of the requests but the last,
        which is the first that the next step computes.
        """
        self._rows.join(caches)
        last = mx.array([request.known[-1] for request in requests], dtype=mx.uint32)
        self._inputs = mx.concatenate([self._drawn(), last])
        self._fresh.update(requests)
        self.requests += requests
        self._renew_sampler()

    def leave(self, requests: Sequence[Request]) -> None:
        keep = [n for n, request in enumerate(self.requests) if request not in requests]
        if len(keep) == len(self.requests):
            return
        self.requests = [self.requests[n] for n in keep]
        for request in requests:
            self._logprobs.pop(request, None)
            self._fresh.discard(request)
            self.faults.pop(request, None)
        self._rows.stay(keep)
        self._inputs = self._drawn()[mx.array(keep, dtype=mx.int32)]
        self._renew_sampler()

    def extract(self, request: Request, unsaid: int = 0) -> tuple[int, list[Any]]:
        """A copy of one row's caches, and how many of the request's tokens they hold: none of the
        last `unsaid` that a step gave.
        """
        row = self.requests.index(request)
        count = len(request.tokens) + len(request.generated) - (not self._launched)
        caches = self._rows.extract(row)
        if unsaid:
            for cache in caches:
                cache.trim(unsaid)
        return count, caches

    def wait(self) -> None:
        """Until the step that was launched is computed."""
        mx.eval(self._under_way)

    def step(self) -> list[Decoded]:
        """Launch the next step, then read the tokens of the one before."""
        inputs, logprobs, fresh = self._drawn(), self._logprobs, self._fresh
        self._launched = any(self._goes_on(request) for request in self.requests)
        if self._launched:
            self._launch(inputs)
        return self._read(inputs, logprobs, fresh)

    @property
    def settled(self) -> bool:
        """No step is under way."""
        return len(self._fresh) == len(self.requests)

    def settle(self) -> list[Decoded]:
        """Read the tokens of the step under way, and launch no other."""
        inputs, logprobs, fresh = self._drawn(), self._logprobs, self._fresh
        self._launched, self._logprobs, self._fresh = False, {}, set(self.requests)
        return self._read(inputs, logprobs, fresh)

    def verify(self, guesses: mx.array) -> list[Decoded]:
        """The tokens that steps would have given one by one, as far as the guesses were right, and
        one more for each row. guesses: [rows, count]. All rows are settled and have neither
        penalties nor grammars.
        """
        inputs = mx.concatenate([self._drawn()[:, None], guesses], axis=1)
        logits = self._rows.forward(inputs)
        places = range(inputs.shape[1])
        sampler = BatchSampler([r.row.ahead(place) for r in self.requests for place in places])
        lines = sampler.process(logits.reshape(-1, logits.shape[-1]))
        drawn = sampler.sample(lines).reshape(inputs.shape)
        mx.eval(drawn, guesses)
        tokens: list[list[int]] = drawn.tolist()  # type: ignore[assignment]
        guessed: list[list[int]] = guesses.tolist()  # type: ignore[assignment]
        right = [shared_prefix(*pair) for pair in zip(guessed, tokens, strict=True)]
        wrong = [guesses.shape[1] - n for n in right]
        self._rows.take_back(wrong, [request.held for request in self.requests])
        self._inputs = mx.array([row[n] for row, n in zip(tokens, right, strict=True)])
        self._inputs = self._inputs.astype(inputs.dtype)
        said = []
        for row, request in enumerate(self.requests):
            request.row.draws += right[row] + 1
            first = row * len(places)
            for n in range(right[row] + 1):
                scores = _log_softmax(lines[first + n]) if request.wants_scores else None
                said.append(Decoded(request, tokens[row][n], scores, right[row] - n))
        return said

    def _read(
        self, inputs: mx.array, logprobs: dict[Request, mx.array], fresh: set[Request]
    ) -> list[Decoded]:
        tokens: list[int] = inputs.tolist()  # type: ignore[assignment]
        return [
            Decoded(request, token, logprobs.get(request))
            for request, token in zip(self.requests, tokens, strict=True)
            if request not in fresh
        ]

    def _goes_on(self, request: Request) -> bool:
        """Its next token is not known to be its last: a grammar may have to hear of that one."""
        return request in self._fresh or request.constraint is not None or request.left > 1

    def _launch(self, inputs: mx.array) -> None:
        logits = self._rows.forward(inputs[:, None])[:, -1]
        constrained = [r for r in self.requests if r.constraint]
        logits = self._sampler.process(logits)
        if constrained:
            mx.async_eval(logits)  # the masks are made meanwhile
            logits = self._mask(logits, inputs)
        self._logprobs = self._scores(logits)
        self._fresh = set()
        if self._sampler.waits:
            self._undrawn = logits
        else:
            self._inputs = self._sampler.sample(logits)
        mx.async_eval(self._under_way, *self._logprobs.values())
        self._sampler.prepare(logits)

    @property
    def _under_way(self) -> mx.array:
        """What the step that was launched ends with."""
        return self._inputs if self._undrawn is None else self._undrawn

    def _drawn(self) -> mx.array:
        """The last token of each row."""
        if self._undrawn is not None:
            logits, self._undrawn = self._undrawn, None
            self._inputs = self._sampler.sample(logits)
        return self._inputs

    def _mask(self, logits: mx.array, inputs: mx.array) -> mx.array:
        tokens: list[int] = inputs.tolist()  # type: ignore[assignment]
        masks = np.ones(logits.shape, dtype=np.bool_)
        for row, request in enumerate(self.requests):
            if request.constraint and request not in self.faults:
                token = None if request in self._fresh else tokens[row]
                fault = attempt(partial(request.constraint.step, token, masks[row]))
                if fault:  # what it draws from here on is never said
                    self.faults[request] = fault
                    masks[row] = True
        return mx.where(mx.array(masks), logits, -mx.inf)

    def _scores(self, logits: mx.array) -> dict[Request, mx.array]:
        wanted = {r: row for row, r in enumerate(self.requests) if r.wants_scores}
        if not wanted:
            return {}
        lines = _log_softmax(logits[mx.array(list(wanted.values()))])
        return dict(zip(wanted, lines, strict=True))

    def _renew_sampler(self) -> None:
        self._sampler.release()
        self._sampler = BatchSampler([request.row for request in self.requests])


def _log_softmax(logits: mx.array) -> mx.array:
    lines = logits.astype(mx.float32)
    return lines - mx.logsumexp(lines, axis=-1, keepdims=True)
