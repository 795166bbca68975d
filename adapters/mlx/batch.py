"""The running batch: prompts that are computed in slices, and rows that decode. Worker thread only.

mlx-lm's models and caches, and a step of our own (see decode.py for what it saves).
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import mlx.core as mx

from adapters.mlx.decode import DecodeBatch, Decoded
from adapters.mlx.drafters import Drafters
from adapters.mlx.faults import attempt
from adapters.mlx.guesser import Guesser
from adapters.mlx.lanes import Lanes
from adapters.mlx.lookups import Lookups
from adapters.mlx.model import LoadedModel
from adapters.mlx.pace import StepTimes
from adapters.mlx.prefill import Failed, PrefillOptions, Prefills, Ready
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request
from adapters.mlx.rows import Rows
from adapters.mlx.speculation import Speculation
from domain.errors import DomainError
from domain.outputs import End, EngineOutput

Said = tuple[Request, Sequence[EngineOutput] | DomainError]


class Batch:
    """Requests that have a place. lookups: the most tokens that are guessed from the text itself,
    where a model has no draft; 0 is none.
    """

    def __init__(
        self,
        model: LoadedModel,
        rows: Rows,
        options: PrefillOptions,
        lanes: Lanes,
        kept: PrefixCache,
        lookups: int,
    ) -> None:
        self._decoding = DecodeBatch(rows)
        self._speculation: Speculation | None = None
        guesser: Guesser | None = None
        if model.draft:
            guesser = Drafters(model.draft, options, kept, self._decoding.wait)
        elif lookups and rows.take_tokens_back and not model.exact_states:
            guesser = Lookups(lookups)
        if guesser:
            self._speculation = Speculation(guesser, self._decoding, options.pace)
        self._prefills = Prefills(model, options, lanes, kept)
        self._kept = kept
        self._steps = StepTimes()
        self._spent = 0.0  # seconds, of the last step, until its tokens were read
        self._joined = 0
        self.steps = 0
        self.generated_tokens = 0

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def requests(self) -> list[Request]:
        return [*self._decoding.requests, *self._prefills.requests]

    @property
    def prefilled_tokens(self) -> int:
        """The last of each prompt is computed with the rows that decode."""
        return self._prefills.tokens + self._joined

    @property
    def drafted_tokens(self) -> int:
        return self._speculation.drafted if self._speculation else 0

    @property
    def accepted_tokens(self) -> int:
        return self._speculation.accepted if self._speculation else 0

    def add(self, request: Request) -> None:
        self._prefills.add(request)

    def remove(self, request_id: int) -> None:
        """Harmless for ids that have no place."""
        for request in self.requests:
            if request.submit.id == request_id:
                self._leave([request])
                self._prefills.remove(request)

    def decode(self) -> Iterator[Said]:
        """A token for every request that decodes; several, where guesses were right."""
        if not self._decoding.requests:
            return
        tokens = self._guessed_step() if self._speculation else self._step()
        self.steps += 1
        ended: list[Request] = []
        for decoded in tokens:
            request = decoded.request
            if request in ended:
                continue
            self.generated_tokens += 1
            said = attempt(partial(request.outputs, decoded.token, decoded.logprobs))
            yield request, said
            if isinstance(said, DomainError):
                ended.append(request)
            elif isinstance(said[-1], End):
                # Nothing of the answer is lost without it.
                attempt(partial(self._keep, request, decoded.more))
                ended.append(request)
        for request, fault in self._decoding.faults.items():
            if request not in ended:
                yield request, fault
                ended.append(request)
        self._leave(ended)

    def prefill(self) -> Iterator[Said]:
        """Slices of prompts, within what those who decode can spare."""
        if not self._prefills.requests:
            if self._speculation:
                self._speculation.read_on()
            return
        if self._speculation:
            self._speculation.interrupted()
        width = len(self._decoding.requests)
        if width and self._prefills.awaits_company:
            return
        if width:  # the step that was launched ends first anyway
            begun = time.perf_counter()
            self._decoding.wait()
            self._steps.add(width, self._spent + time.perf_counter() - begun)
        # Those whose prompts are computed will decode as well: the pace to keep is that of all,
        # and where more wait than decode, the time is theirs in that proportion.
        share = max(1.0, (len(self) - width) / width) if width else 1.0
        step_seconds = share * self._steps.ahead(width, len(self)) if width else None
        for done in self._prefills.run(step_seconds):
            if isinstance(done, Ready):
                self._decoding.join(done.requests, done.caches)
                self._joined += len(done.requests)
                for request in done.requests:
                    yield request, request.progress(len(request.tokens))
            elif isinstance(done, Failed):
                yield done.request, done.error
            else:
                yield done.request, done.request.progress(done.done)

    def close(self) -> None:
        # The next step is under way already; a thread that ends amid it can abort the process.
        mx.synchronize()
        self._decoding = DecodeBatch(Rows(None))
        self._speculation = None
        self._prefills.clear()

    def _step(self) -> list[Decoded]:
        begun = time.perf_counter()
        tokens = self._decoding.step()
        self._spent = time.perf_counter() - begun
        if not self._prefills.requests:
            self._steps.add(len(self._decoding.requests), self._spent)
        return tokens

    def _guessed_step(self) -> list[Decoded]:
        """If that is the better one."""
        assert self._speculation  # noqa: S101 - who calls has looked
        tokens = self._speculation.step(prompts=bool(self._prefills.requests))
        return self._speculation.gave(self._step()) if tokens is None else tokens

    def _leave(self, requests: Sequence[Request]) -> None:
        self._decoding.leave(requests)
        if self._speculation:
            for request in requests:
                self._speculation.forget(request)

    def _keep(self, request: Request, unsaid: int) -> None:
        """The state after an answer is what the next turn of its conversation begins with.
        unsaid: tokens beyond its end, which came of the same step.
        """
        count, caches = self._decoding.extract(request, unsaid)
        self._kept.keep(request.scope, request.known[:count], caches)
