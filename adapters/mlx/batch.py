"""The running batch: mlx-lm's BatchGenerator, by request. Worker thread only."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, PromptProcessingBatch

from adapters.mlx.model import LoadedModel
from adapters.mlx.request import Request
from domain.errors import InvalidRequest
from domain.outputs import End, EngineOutput

Said = tuple[Request, Sequence[EngineOutput] | InvalidRequest]

_PREFILL_WIDTH = 4  # prompts that are prefilled together


@dataclass(slots=True, eq=False)
class _Family:
    """Requests with one prompt: the first prefills it, the others begin with a copy of its state.

    The state is kept until as many have come as were announced, or none is left.
    """

    expected: int
    leader: Request | None = None
    state: list[Any] | None = None  # the KV cache of the prompt without its last token
    waiting: list[Request] = field(default_factory=list)
    members: set[int] = field(default_factory=set)


class Batch:
    """Requests that are prefilled and decoded together."""

    def __init__(self, model: LoadedModel, width: int, prefill_step_size: int) -> None:
        self._generator = BatchGenerator(
            model.network,
            stop_tokens=[(token,) for token in model.tokenizer.eos_token_ids],
            completion_batch_size=width,
            prefill_batch_size=min(_PREFILL_WIDTH, width),
            prefill_step_size=prefill_step_size,
        )
        self._running: dict[int, Request] = {}
        self._families: dict[str, _Family] = {}
        self.prefilled_tokens = 0
        self.steps = 0
        self.generated_tokens = 0

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def requests(self) -> list[Request]:
        """All that have a place, those that wait for a sibling's prefill included."""
        waiting = [request for family in self._families.values() for request in family.waiting]
        return [*self._running.values(), *waiting]

    def add(self, request: Request) -> None:
        siblings = request.submit.command.siblings
        if siblings is None or len(request.tokens) == 1:
            self._insert(request, request.tokens)
            return
        family = self._families.setdefault(siblings.key, _Family(siblings.count))
        family.expected -= 1
        family.members.add(request.submit.id)
        family.waiting.append(request)
        self._move_up(family)

    def remove(self, request_id: int) -> None:
        """Harmless for ids that have no place."""
        for request in self.requests:
            if request.submit.id == request_id:
                self._drop(request)

    def step(self) -> Iterator[Said]:
        """One slice of prefill and one token for every request that decodes."""
        prompts, responses = self._generator.next()
        self.steps += bool(responses)
        self.generated_tokens += len(responses)
        for progress in prompts:
            request = self._running[progress.uid]
            yield request, [request.progress(progress.progress[0])]
            self._note_prefill(request, progress)
        for response in responses:
            request = self._running[response.uid]
            try:
                outputs = request.outputs(response)
            except InvalidRequest as error:
                yield request, error
                self._drop(request)
                continue
            yield request, outputs
            if response.finish_reason is not None:
                del self._running[response.uid]
                self._leave_family(request)
            elif isinstance(outputs[-1], End):
                self._drop(request)

    def close(self) -> None:
        # The next step is under way already; a thread that ends amid it can abort the process.
        mx.synchronize(self._generator.stream)
        self._generator.close()
        self._running.clear()
        self._families.clear()

    def _insert(self, request: Request, tokens: list[int], state: list[Any] | None = None) -> None:
        before = request.tokens[: len(request.tokens) - len(tokens)]
        (request.uid,) = self._generator.insert(
            [tokens],
            max_tokens=[request.max_tokens],
            caches=None if state is None else [state],
            all_tokens=[before],
            samplers=[request.sampler],
            logits_processors=[request.processors],
        )
        self._running[request.uid] = request
        self.prefilled_tokens += len(tokens)

    def _drop(self, request: Request) -> None:
        if request.uid in self._running:
            self._generator.remove([request.uid])
            del self._running[request.uid]
        self._leave_family(request)

    def _note_prefill(self, request: Request, progress: PromptProcessingBatch.Response) -> None:
        """At the end of the leader's prompt, but for its last token, the siblings can begin."""
        siblings = request.submit.command.siblings
        family = self._families.get(siblings.key) if siblings else None
        if family and family.leader is request and progress.end_of_segment:
            family.state = (
                family.state or self._generator.extract_cache([request.uid])[request.uid][0]
            )
            self._move_up(family)

    def _move_up(self, family: _Family) -> None:
        if family.state is not None:
            for request in family.waiting:
                self._insert(request, request.tokens[-1:], copy.deepcopy(family.state))
            family.waiting.clear()
        elif family.leader is None and family.waiting:
            family.leader = family.waiting.pop(0)
            self._insert(family.leader, family.leader.tokens)
        self._forget_done_families()

    def _leave_family(self, request: Request) -> None:
        siblings = request.submit.command.siblings
        family = self._families.get(siblings.key) if siblings else None
        if family is None or request.submit.id not in family.members:
            return
        family.members.discard(request.submit.id)
        if request in family.waiting:
            family.waiting.remove(request)
        if family.leader is request:
            family.leader = None
        self._move_up(family)

    def _forget_done_families(self) -> None:
        for key, family in list(self._families.items()):
            served = family.state is not None and not family.waiting and family.expected <= 0
            if served or not family.members:
                del self._families[key]
