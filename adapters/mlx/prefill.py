"""Prompts on their way into the decode batch. Worker thread only."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx

from adapters.mlx.batched_kv import RaggedKV, merge
from adapters.mlx.faults import attempt
from adapters.mlx.lanes import Lanes
from adapters.mlx.model import LoadedModel
from adapters.mlx.pace import SliceSize
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request
from adapters.mlx.snapshot import Unkeepable, always_trimmable, freeze, thaw
from domain.batching import (
    LEAST_SLICE,
    await_company,
    even_slice,
    next_prompt,
    places,
    shared_prefix,
    together,
)
from domain.errors import DomainError

_WORTH_SHARING = 32  # tokens; for fewer nobody waits
_WORTH_KEEPING = 32
_ALONE = 0.5  # seconds of a slice while nobody decodes: until then nobody can join or leave
_LONG = 1024  # tokens; those who decode have to bear many slices
_FIRST_ALONE, _FIRST_AMONG = 512, 64  # tokens, before anything was measured


@dataclass(frozen=True, slots=True)
class PrefillOptions:
    """step_size: the most tokens of one slice. pace, long_pace: how many decode steps' time a
    slice may take while others decode, where short prompts wait and where only long
    ones do. width: how many short prompts are computed in one go. multiple: slices
    are padded to multiples of so many tokens, and to few numbers of rows, where every new shape
    costs more than computing too much; 1 is not at all. least: tokens of a slice, fewer of which
    would take as long. ragged: those who decode take rows that end anywhere.
    """

    step_size: int
    pace: float
    long_pace: float
    width: int
    multiple: int = 1
    least: int = LEAST_SLICE
    ragged: bool = False


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
        self.long = self.remaining > _LONG
        self.opens = True  # nothing of it was computed here yet

    @property
    def remaining(self) -> int:
        return len(self.tokens) - 1 - self.done

    def next_slice(self, at_most: int, multiple: int = 1) -> list[int]:
        ahead = [stop for stop in self.stops if stop > self.done]
        end = min([len(self.tokens) - 1, *ahead])
        return self.tokens[self.done : self.done + even_slice(end - self.done, at_most, multiple)]

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

    def __init__(
        self, model: LoadedModel, options: PrefillOptions, lanes: Lanes, kept: PrefixCache
    ) -> None:
        self._model = model
        self._options = options
        self._kept = kept
        self._prompts: list[Prompt] = []
        self._followers: list[_Follower] = []
        self._turn = 0
        self._lanes = lanes
        trimmable = always_trimmable(model.make_caches())
        self._multiple = options.multiple if trimmable else 1
        self._alone = SliceSize(_FIRST_ALONE, options.step_size, options.least)
        self._among, self._long_among = (
            SliceSize(_FIRST_AMONG, options.step_size, options.least) for _ in range(2)
        )
        self._arrived = False  # since the last time that somebody looked
        self._waiting_since: float | None = None
        self._slice_seconds = 0.0  # of the last
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
        self._arrived = True

    @property
    def awaits_company(self) -> bool:
        """Others are likely to come that can be computed in one go with those who wait; to be
        asked once a decode step.
        """
        arrived, self._arrived = self._arrived, False
        if self._options.least <= LEAST_SLICE:
            return False
        remaining = [prompt.remaining for prompt in self._prompts if prompt.remaining]
        if not remaining:
            return False
        full = len(remaining) >= self._options.width or sum(remaining) >= self._options.least
        now = time.perf_counter()
        self._waiting_since = self._waiting_since or now
        return await_company(full, arrived, now - self._waiting_since, self._slice_seconds)

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
        self._waiting_since = None
        size, budget = self._alone, _ALONE
        if step_seconds is not None:
            long = all(prompt.long for prompt in self._prompts if prompt.remaining)
            size = self._long_among if long else self._among
            budget = step_seconds * (self._options.long_pace if long else self._options.pace)
        room, begun, before = size.tokens, time.perf_counter(), self.tokens
        least = min(room, max(self._options.least, self._multiple))
        while room >= least and any(prompt.remaining for prompt in self._prompts):
            here = self.tokens
            for done in self._compute(room):
                if isinstance(done, Prompt):
                    self._lead(done)
                yield done
            room -= self.tokens - here
        if self.tokens > before:
            self._slice_seconds = time.perf_counter() - begun
            size.measured(self.tokens - before, self._slice_seconds, budget)
        ready = [prompt for prompt in self._prompts if not prompt.remaining]
        if ready:
            self._prompts = [prompt for prompt in self._prompts if prompt.remaining]
            for prompt in ready:
                if self._is_worth_keeping(prompt):
                    self._keep(prompt, prompt.caches)
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
        tokens = prompt.next_slice(room, self._multiple)
        fault = attempt(partial(self._forward, tokens, prompt.caches, prompt.opens))
        if fault:
            self.remove(prompt.request)
            yield Failed(prompt.request, fault)
            return
        prompt.opens = False
        prompt.done += len(tokens)
        self.tokens += len(tokens)
        yield prompt

    def _forward(self, tokens: list[int], caches: list[Any], opens: bool) -> None:
        padding = self._padded(len(tokens)) - len(tokens)
        self._lanes.forward(self._model.network, tokens + [0] * padding, caches, opens)
        if padding:
            for cache in caches:
                cache.trim(padding)

    def _group(
        self, waiting: list[Prompt], remaining: list[int], first: int, room: int
    ) -> list[Prompt]:
        """Short ones that nobody follows are computed in one go with the first, if it is one."""
        able = [p.whole and p.remaining <= room and not p.alone for p in waiting]
        if self._options.width == 1 or not able[first]:
            return []
        lengths = [
            self._padded(left) if fits else room + 1
            for left, fits in zip(remaining, able, strict=True)
        ]
        group = together(lengths, first, room)[: self._options.width]
        return [waiting[n] for n in group]

    def _padded(self, tokens: int) -> int:
        return tokens + -tokens % self._multiple

    def _compute_together(self, prompts: list[Prompt]) -> Iterator[Done]:
        rest = [prompt.next_slice(prompt.remaining) for prompt in prompts]
        if self._options.ragged and not any(prompt.done for prompt in prompts):
            forward = partial(self._forward_ragged, rest)
        else:
            forward = partial(self._forward_padded, rest, [prompt.caches for prompt in prompts])
        caches = attempt(forward)
        if isinstance(caches, DomainError):  # their own caches are untouched: each for itself
            for prompt in prompts:
                prompt.alone = True
            return
        self._prompts = [prompt for prompt in self._prompts if prompt not in prompts]
        for row, prompt in enumerate(prompts):
            self.tokens += len(rest[row])
            prompt.done += len(rest[row])
            yield prompt
            if self._is_worth_keeping(prompt):
                self._keep(prompt, [cache.extract(row) for cache in caches])
        yield Ready([prompt.request for prompt in prompts], caches)

    def _forward_padded(self, rest: list[list[int]], states: list[list[Any]]) -> list[Any]:
        """The states after the rest, one batch of them."""
        rows = self._side_by_side(rest, places(len(rest)) if self._multiple > 1 else len(rest))
        longest, nothing = len(rows[0]), len(rows) - len(rest)
        caches = _merge([*states, *(self._model.make_caches() for _ in range(nothing))])
        lengths = [*(len(tokens) for tokens in rest), *[longest] * nothing]
        padding = [longest - length for length in lengths]
        if any(padding):
            for cache in caches:
                cache.prepare(lengths=lengths, right_padding=padding)
        self._model.network(mx.array(rows), cache=caches)
        for cache in caches:
            if any(padding):
                cache.finalize()
            if self._multiple > 1:  # what no row needs
                cache.filter(list(range(len(rest))))
        mx.eval([cache.state for cache in caches])
        return caches

    def _forward_ragged(self, rest: list[list[int]]) -> list[Any]:
        """Prompts of which nothing is known, and nobody minds where they end."""
        rows = self._side_by_side(rest, places(len(rest)))
        caches = self._model.make_caches()
        self._model.network(mx.array(rows), cache=caches)
        mx.eval([(cache.keys, cache.values) for cache in caches])
        return [RaggedKV(cache, [len(tokens) for tokens in rest]) for cache in caches]

    def _side_by_side(self, rest: list[list[int]], count: int) -> list[list[int]]:
        """So many rows, padded at their ends."""
        longest = self._padded(max(len(tokens) for tokens in rest))
        nothing: list[list[int]] = [[]] * (count - len(rest))
        return [tokens + [0] * (longest - len(tokens)) for tokens in [*rest, *nothing]]

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

    def _is_worth_keeping(self, prompt: Prompt) -> bool:
        """Not what is computed as quickly. The state after the answer is kept in any case."""
        return prompt.done >= max(_WORTH_KEEPING, self._options.least)

    def _keep(self, prompt: Prompt, caches: list[Any]) -> None:
        """What can't be kept is computed again the next time."""
        scope, tokens = prompt.request.scope, prompt.tokens[: prompt.done]
        attempt(partial(self._kept.keep, scope, tokens, caches))


def _merge(states: Sequence[list[Any]]) -> list[Any]:
    """Single-row caches, a list for each request, into batched ones, one for each layer."""
    return [merge(layers) for layers in zip(*states, strict=True)]
