"""Prompts on their way into the decode batch. Worker thread only."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from adapters.mlx.batched_kv import merge
from adapters.mlx.faults import attempt
from adapters.mlx.model import LoadedModel
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request
from adapters.mlx.snapshot import Unkeepable, freeze, thaw
from domain.batching import next_prompt, shared_prefix, slice_size, together
from domain.errors import DomainError

_WORTH_SHARING = 32  # tokens; for fewer nobody waits
_WORTH_KEEPING = 32
_SMOOTHING = 0.3  # of each new measurement


@dataclass(frozen=True, slots=True)
class PrefillOptions:
    """step_size: the most tokens of one slice. pace: how many decode steps' time a slice may take
    while others decode. width: how many short prompts are computed in one go.
    """

    step_size: int
    pace: float
    width: int


class Prompt:
    """One prompt and the state of what has been computed of it.

    The last token is left for the decode batch, whose next step gives the first new token.
    caches: single-row, with the first `done` tokens. A slice ends at each of the `stops`.
    """

    def __init__(self, request: Request, caches: list[Any], done: int) -> None:
        self.request = request
        self.tokens = request.known
        self.caches = caches
        self.done = done
        self.stops = {stop for stop in request.boundaries if done < stop < len(self.tokens) - 1}
        self.alone = False  # it was in a group that failed

    @property
    def remaining(self) -> int:
        return len(self.tokens) - 1 - self.done

    def next_slice(self, at_most: int) -> list[int]:
        ahead = [stop for stop in self.stops if stop > self.done]
        end = min([self.done + at_most, len(self.tokens) - 1, *ahead])
        return self.tokens[self.done : end]

    @property
    def whole(self) -> bool:
        """Nothing is to be kept of it on the way."""
        return not any(stop > self.done for stop in self.stops)


@dataclass(slots=True, eq=False)
class _Follower:
    """Begins with a copy of the leader's first `length` tokens, once they are computed."""

    request: Request
    leader: Prompt
    length: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Prompts that can decode, and their batched caches."""

    requests: list[Request]
    caches: list[Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """A prompt that can't be computed; it has left."""

    request: Request
    error: DomainError


Done = Prompt | Ready | Failed


class Prefills:
    """Computes prompts in slices; what two have in common is computed once."""

    def __init__(self, model: LoadedModel, options: PrefillOptions, kept: PrefixCache) -> None:
        self._model = model
        self._options = options
        self._kept = kept
        self._prompts: list[Prompt] = []
        self._followers: list[_Follower] = []
        self._turn = 0
        self._tokens_per_second = 0.0
        self.tokens = 0  # computed so far

    @property
    def requests(self) -> list[Request]:
        followers = [follower.request for follower in self._followers]
        return [*(prompt.request for prompt in self._prompts), *followers]

    def add(self, request: Request) -> None:
        """With what is known of its prompt already, or behind one that is computing it."""
        found = attempt(partial(self._kept.find, request.scope, request.known))
        count, caches = found if isinstance(found, tuple) else (0, None)
        leader, length = self._best_leader(request)
        enough = length >= count + _WORTH_SHARING or count < length == len(request.known) - 1
        if leader and enough:
            leader.stops.add(length)
            self._followers.append(_Follower(request, leader, length))
            return
        request.cached = request.cached if request.preempted else count
        caches = caches or self._model.make_caches()
        self._prompts.append(Prompt(request, caches, count))

    def remove(self, request: Request) -> None:
        """Those who followed it begin anew, behind another or by themselves."""
        self._followers = [f for f in self._followers if f.request is not request]
        gone = [prompt for prompt in self._prompts if prompt.request is request]
        self._prompts = [prompt for prompt in self._prompts if prompt.request is not request]
        orphans = [f for f in self._followers if f.leader in gone]
        self._followers = [f for f in self._followers if f.leader not in gone]
        for orphan in orphans:
            self.add(orphan.request)

    def clear(self) -> None:
        self._prompts.clear()
        self._followers.clear()

    def run(self, step_seconds: float | None) -> Iterator[Done]:
        """A slice of each prompt whose turn it is, then all that are ready.

        step_seconds: how long a decode step takes; None while nobody decodes.
        """
        room = self._options.step_size
        if step_seconds is not None and self._tokens_per_second:
            rate = self._tokens_per_second
            room = min(room, slice_size(self._options.pace, step_seconds, rate))
        while room > 0 and any(prompt.remaining for prompt in self._prompts):
            begun, before = time.perf_counter(), self.tokens
            for done in self._compute(room):
                if isinstance(done, Prompt):
                    self._lead(done)
                yield done
            if computed := self.tokens - before:
                self._measure(computed / (time.perf_counter() - begun))
                room -= computed
        ready = [prompt for prompt in self._prompts if not prompt.remaining]
        if ready:
            self._prompts = [prompt for prompt in self._prompts if prompt.remaining]
            for prompt in ready:
                self._finish(prompt, prompt.caches)
            yield Ready([p.request for p in ready], _merge([p.caches for p in ready]))

    def _compute(self, room: int) -> Iterator[Done]:
        waiting = [prompt for prompt in self._prompts if prompt.remaining]
        remaining = [prompt.remaining for prompt in waiting]
        first = next_prompt(remaining, self._turn)
        self._turn += 1
        group = self._group(waiting, remaining, first, room)
        if len(group) > 1:
            yield from self._compute_together(group)
            return
        prompt = waiting[first]
        tokens = prompt.next_slice(room)
        fault = attempt(partial(self._forward, [tokens], prompt.caches))
        if fault:
            self.remove(prompt.request)
            yield Failed(prompt.request, fault)
            return
        prompt.done += len(tokens)
        self.tokens += len(tokens)
        yield prompt

    def _forward(self, rows: list[list[int]], caches: list[Any]) -> None:
        self._model.network(mx.array(rows), cache=caches)
        mx.eval([cache.state for cache in caches])

    def _group(
        self, waiting: list[Prompt], remaining: list[int], first: int, room: int
    ) -> list[Prompt]:
        """Short ones that nobody follows are computed in one go with the first, if it is one."""
        able = [p.whole and p.remaining <= room and not p.alone for p in waiting]
        if self._options.width == 1 or not able[first]:
            return []
        lengths = [left if fits else room + 1 for left, fits in zip(remaining, able, strict=True)]
        room = max(room, self._options.step_size)
        return [waiting[n] for n in together(lengths, first, room)[: self._options.width]]

    def _compute_together(self, prompts: list[Prompt]) -> Iterator[Done]:
        rest = [prompt.next_slice(prompt.remaining) for prompt in prompts]
        lengths = [len(tokens) for tokens in rest]
        caches = attempt(partial(self._forward_padded, prompts, rest))
        if isinstance(caches, DomainError):  # their own caches are untouched: each for itself
            for prompt in prompts:
                prompt.alone = True
            return
        self.tokens += sum(lengths)
        self._prompts = [prompt for prompt in self._prompts if prompt not in prompts]
        for row, prompt in enumerate(prompts):
            prompt.done += lengths[row]
            yield prompt
            self._finish(prompt, [cache.extract(row) for cache in caches])
        yield Ready([prompt.request for prompt in prompts], caches)

    def _forward_padded(self, prompts: list[Prompt], rest: list[list[int]]) -> list[Any]:
        """The caches of all, batched."""
        lengths = [len(tokens) for tokens in rest]
        padding = [max(lengths) - length for length in lengths]
        caches = _merge([prompt.caches for prompt in prompts])
        if any(padding):
            for cache in caches:
                cache.prepare(lengths=lengths, right_padding=padding)
        rows = [tokens + [0] * pad for tokens, pad in zip(rest, padding, strict=True)]
        self._model.network(mx.array(rows), cache=caches)
        if any(padding):
            for cache in caches:
                cache.finalize()
        mx.eval([cache.state for cache in caches])
        return caches

    def _best_leader(self, request: Request) -> tuple[Prompt | None, int]:
        """The prompt under way that has most in common with this one, and is not past it."""
        best, length = None, 0
        for prompt in self._prompts:
            if prompt.request.scope == request.scope:
                shared = shared_prefix(prompt.tokens, request.known)
                shared = min(shared, len(request.known) - 1, len(prompt.tokens) - 1)
                if shared > max(length, prompt.done):
                    best, length = prompt, shared
        return best, length

    def _lead(self, prompt: Prompt) -> None:
        """Those who wait for just so much of it go their own ways from here."""
        if prompt.done in prompt.stops and prompt.done >= _WORTH_KEEPING:
            self._keep(prompt, prompt.caches)
        here = [f for f in self._followers if f.leader is prompt and f.length <= prompt.done]
        if not here:
            return
        self._followers = [f for f in self._followers if f not in here]
        try:
            state = freeze(prompt.caches, prompt.done)
        except Unkeepable:  # caches that nobody knows how to copy: each for itself
            fresh = (Prompt(f.request, self._model.make_caches(), 0) for f in here)
            self._prompts.extend(fresh)
            return
        for follower in here:
            if not follower.request.preempted:
                follower.request.cached = prompt.done
            caches = thaw(state, prompt.done)
            self._prompts.append(Prompt(follower.request, caches, prompt.done))

    def _finish(self, prompt: Prompt, caches: list[Any]) -> None:
        if prompt.done >= _WORTH_KEEPING:
            self._keep(prompt, caches)

    def _keep(self, prompt: Prompt, caches: list[Any]) -> None:
        """What can't be kept is computed again the next time."""
        scope, tokens = prompt.request.scope, prompt.tokens[: prompt.done]
        attempt(partial(self._kept.keep, scope, tokens, caches))

    def _measure(self, tokens_per_second: float) -> None:
        if self._tokens_per_second:
            tokens_per_second = (
                _SMOOTHING * tokens_per_second + (1 - _SMOOTHING) * self._tokens_per_second
            )
        self._tokens_per_second = tokens_per_second


def _merge(states: Sequence[list[Any]]) -> list[Any]:
    """Single-row caches, a list for each request, into batched ones, one for each layer."""
    return [merge(layers) for layers in zip(*states, strict=True)]
