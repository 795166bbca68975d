"""The only thread that touches mlx for one model: it loads, steps and unloads."""

import gc
import logging
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import mlx.core as mx

from adapters.mlx import gpu
from adapters.mlx.batch import Batch, Said
from adapters.mlx.draft import with_draft
from adapters.mlx.faults import attempt, unusable
from adapters.mlx.fingerprint import open_store
from adapters.mlx.lanes import Lanes
from adapters.mlx.mailbox import Cancel, Close, Deliver, Halt, Link, Loaded, Mail, Submit
from adapters.mlx.model import LoadedModel, load
from adapters.mlx.prefill import PrefillOptions
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request
from adapters.mlx.reserve import Reserve
from adapters.mlx.warm_up import Readied, ready
from application.ports import EngineStats
from application.trace import kind, wordless
from domain.errors import (
    DomainError,
    EngineFailed,
    InvalidRequest,
    ShuttingDown,
)
from domain.outputs import End, EngineOutput

logger = logging.getLogger("portico.engine")

_BEFORE_FLUSH = 1.0  # seconds; a state that a longer one replaces by then is never written
_FLUSH_SLICE = 0.01  # seconds between two looks into the mail
_LAST_FLUSH = 5.0  # seconds at most that a close waits for what is not on disk yet


class Worker:
    """Between steps it takes mail and admits; after a step it makes one hop to the event loop
    for the whole batch. A fault of one request fails that request; a fault of the step fails
    every request, and ends the thread.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loading = link.card
        self._waiting: deque[Request] = deque()
        draft, options = link.plan.draft, link.options
        guesses = draft.tokens if draft else options.prompt_lookup_tokens
        self._reserve = Reserve(link.plan, options.max_batch_size, guesses, gpu.batch_places)
        self._preemptions = 0
        self._kept = PrefixCache(0)
        self._outbox: list[tuple[Deliver, EngineOutput | DomainError]] = []

    def run(self) -> None:
        """The whole life of the thread."""
        try:
            gpu.apply(self._link.options.max_cache_bytes)
            model = self._load()
            readied = ready(model, self._step_size)
        except DomainError as error:
            self._link.loaded.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - the worker's boundary: see faults.py
            self._link.loaded.set_exception(unusable(self._loading, "loaded", error))
        else:
            copied = readied.layers.copied if readied.layers else 0
            self._beat()
            self._link.loaded.set_result(Loaded(model.markup, model.footprint + copied))
            self._serve(model, readied)
            del model, readied
        try:
            gc.collect()
            mx.clear_cache()
        finally:
            self._link.closed.set_result(None)

    def _load(self) -> LoadedModel:
        plan = self._link.plan
        model = load(self._link.card, plan.kv_bits)
        if plan.draft is None:
            return model
        self._loading = plan.draft.card
        return with_draft(model, self._link.card.id, plan.draft)

    def _serve(self, model: LoadedModel, readied: Readied) -> None:
        batch: Batch | None = None
        try:
            batch = self._open_batch(model, readied)
            while self._take_mail(model, batch):
                self._admit(batch)
                self._make_room(batch)
                self._publish()
                self._do(batch, batch.decode())
                self._do(batch, batch.prefill())
            self._link.failure = self._link.failure or ShuttingDown()
        except BaseException as error:
            logger.error("the engine of %s failed", self._link.card.id, exc_info=wordless(error))
            self._link.failure = EngineFailed(
                f"The engine of `{self._link.card.id}` failed ({kind(error)})."
            )
        finally:
            self._fail_all(batch, self._link.failure or ShuttingDown())
            self._shut(batch)

    @property
    def _step_size(self) -> int:
        return self._link.options.prefill_step_size or gpu.prefill_step_size()

    def _open_batch(self, model: LoadedModel, readied: Readied) -> Batch:
        options = self._link.options
        self._kept = self._open_cache(model)
        prefill = PrefillOptions(
            self._step_size,
            options.prefill_pace or readied.pace,
            options.prefill_pace or gpu.prefill_pace(long=True),
            gpu.prefill_width(),
            gpu.prefill_multiple(),
            readied.least_slice,
            readied.rows.takes_ragged,
        )
        lanes = Lanes(readied.layers)
        return Batch(model, readied.rows, prefill, lanes, self._kept, options.prompt_lookup_tokens)

    def _shut(self, batch: Batch | None) -> None:
        """After a fault the device may not even do this; the thread has to come to its end."""
        try:
            if batch:
                batch.close()
            self._kept.flush(_LAST_FLUSH)
            self._kept.close()
        except BaseException as error:
            problem = "%s was not closed in good order"
            logger.error(problem, self._link.card.id, exc_info=wordless(error))

    def _open_cache(self, model: LoadedModel) -> PrefixCache:
        options = self._link.options
        if not options.prefix_cache:
            return PrefixCache(0)
        store = None
        if options.prefix_dir and options.prefix_disk_bytes:
            store = open_store(
                options.prefix_dir,
                self._link.card,
                self._link.plan.kv_bits,
                model.make_caches(),
                options.prefix_disk_bytes,
            )
        return PrefixCache(self._reserve.room, store)

    def _take_mail(self, model: LoadedModel, batch: Batch) -> bool:
        """Handle what has come; wait for something when there is nothing else to do."""
        while True:
            try:
                if self._waiting or len(batch):
                    mail = self._link.mail.get_nowait()
                else:
                    mail = self._idle()
            except queue.Empty:
                return True
            self._beat()
            match mail:
                case Submit():
                    self._accept(mail, model)
                case Cancel():
                    self._cancel(mail.id, batch)
                case Halt():
                    self._waiting.clear()
                    for request in batch.requests:
                        batch.remove(request.submit.id)
                    self._count(batch)
                case Close():
                    self._link.failure = mail.error
                    return False
            self._publish()
            self._beat()

    def _beat(self) -> None:
        """A sign of life."""
        self._link.heartbeat = time.monotonic()

    def _idle(self) -> Mail:
        """Wait for mail. What is to be on disk is written a while after the last request, a piece
        at a time.
        """
        patience = _BEFORE_FLUSH if self._kept.unsaved else None
        while True:
            self._link.idle = True
            try:
                return self._link.mail.get(timeout=patience)
            except queue.Empty:
                pass
            finally:
                self._beat()
                self._link.idle = False
            patience = None if self._kept.flush(_FLUSH_SLICE) else 0.0

    def _accept(self, submit: Submit, model: LoadedModel) -> None:
        try:
            self._waiting.append(Request.prepare(submit, model, self._link.plan.context_length))
        except DomainError as error:
            self._outbox.append((submit.deliver, error))
        except BaseException as error:
            logger.error("a request could not be prepared", exc_info=wordless(error))
            failure = InvalidRequest(f"The model can't take this request ({kind(error)}).")
            self._outbox.append((submit.deliver, failure))

    def _cancel(self, request_id: int, batch: Batch) -> None:
        for request in list(self._waiting):
            if request.submit.id == request_id:
                self._waiting.remove(request)
        batch.remove(request_id)
        self._count(batch)

    def _make_room(self, batch: Batch) -> None:
        """Kept states have what the requests leave over. When these need more than there is, the
        youngest go back to the head of the queue.
        """
        for request in reversed(self._reserve.leaving(batch)):
            batch.remove(request.submit.id)
            request.preempt()
            self._waiting.appendleft(request)
            self._preemptions += 1
        self._count(batch)
        if self._link.options.prefix_cache:
            used = self._link.stats.kv_bytes
            self._kept.limit(self._reserve.spare(batch, self._waiting, used))

    def _admit(self, batch: Batch) -> None:
        for _ in range(self._reserve.joining(batch, self._waiting)):
            request = self._waiting[0]
            begun = attempt(request.begin)
            self._tell(request, begun)
            if request.is_beginning and not isinstance(begun, DomainError):
                return  # others get their turn, and their mail is read
            self._waiting.popleft()
            if isinstance(begun, DomainError):
                continue
            if not request.max_tokens:
                self._tell(request, [End("length")])
            elif failure := attempt(partial(batch.add, request)):
                self._tell(request, failure)

    def _do(self, batch: Batch, work: Iterator[Said]) -> None:
        """And say at once what has come of it."""
        for request, said in work:
            self._tell(request, said)
        self._beat()
        self._count(batch)
        self._publish()

    def _tell(self, request: Request, said: Sequence[EngineOutput] | DomainError) -> None:
        outputs = [said] if isinstance(said, DomainError) else said
        self._outbox += [(request.submit.deliver, output) for output in outputs]

    def _count(self, batch: Batch) -> None:
        self._link.stats = EngineStats(
            running=len(batch),
            waiting=len(self._waiting),
            steps=batch.steps,
            prefilled_tokens=batch.prefilled_tokens,
            generated_tokens=batch.generated_tokens,
            widest_batch=max(self._link.stats.widest_batch, len(batch)),
            kv_bytes=self._reserve.used(batch),
            preemptions=self._preemptions,
            drafted_tokens=batch.drafted_tokens,
            accepted_tokens=batch.accepted_tokens,
        )

    def _publish(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._link.publish(outbox)

    def _fail_all(self, batch: Batch | None, failure: DomainError) -> None:
        """Nothing that was accepted is lost: all of it hears of the end, mail unread included."""
        for request in [*self._waiting, *(batch.requests if batch else [])]:
            self._outbox.append((request.submit.deliver, failure))
        self._waiting.clear()
        while not self._link.mail.empty():
            mail = self._link.mail.get()
            if isinstance(mail, Submit):
                self._outbox.append((mail.deliver, failure))
        self._link.stats = replace(self._link.stats, running=0, waiting=0, kv_bytes=0)
        self._publish()
