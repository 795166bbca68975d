"""The only thread that touches mlx for one model: it loads, steps and unloads."""

import gc
import queue
import time
from collections import deque
from dataclasses import replace

import mlx.core as mx

from adapters.mlx import gpu
from adapters.mlx.batch import Batch
from adapters.mlx.mailbox import Cancel, Close, Deliver, Halt, Link, Loaded, Submit
from adapters.mlx.model import LoadedModel, load
from adapters.mlx.request import Request
from application.ports import EngineStats
from domain.batching import admit
from domain.errors import (
    DomainError,
    EngineFailed,
    InvalidRequest,
    ModelUnusable,
    ShuttingDown,
)
from domain.outputs import End, EngineOutput


class Worker:
    """Between steps it takes mail and admits; after a step it makes one hop to the event loop
    for the whole batch. A fault of one request fails that request; a fault of the step fails
    every request, and ends the thread.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[Request] = deque()
        self._outbox: list[tuple[Deliver, EngineOutput | DomainError]] = []

    def run(self) -> None:
        """The whole life of the thread."""
        try:
            gpu.apply(self._link.options.max_cache_bytes)
            model = load(self._link.card)
        except EngineFailed as error:
            self._link.loaded.set_exception(error)
        except Exception as error:  # noqa: BLE001 - the worker's boundary: mlx-lm raises anything
            text = f"The model `{self._link.card.id}` could not be loaded: {error}"
            self._link.loaded.set_exception(ModelUnusable(text))
        else:
            self._link.loaded.set_result(Loaded(model.markup, model.footprint))
            self._serve(model)
            del model
        gc.collect()
        mx.clear_cache()
        self._link.closed.set_result(None)

    def _serve(self, model: LoadedModel) -> None:
        options = self._link.options
        step = options.prefill_step_size or gpu.prefill_step_size()
        batch = Batch(model, options.max_batch_size, step)
        try:
            while self._take_mail(model, batch):
                self._admit(batch)
                self._publish()
                self._step(batch)
                self._publish()
            self._link.failure = ShuttingDown()
        except Exception as error:  # noqa: BLE001 - the worker's step boundary
            self._link.failure = EngineFailed(
                f"The engine of `{self._link.card.id}` failed: {error!r}"
            )
        finally:
            self._fail_all(batch, self._link.failure or ShuttingDown())
            batch.close()

    def _take_mail(self, model: LoadedModel, batch: Batch) -> bool:
        """Handle what has come; wait for something when there is nothing else to do."""
        while True:
            try:
                mail = self._link.mail.get(block=not (self._waiting or len(batch)))
            except queue.Empty:
                return True
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
                    return False
            self._publish()

    def _accept(self, submit: Submit, model: LoadedModel) -> None:
        try:
            self._waiting.append(Request.prepare(submit, model, self._link.card.context_length))
        except DomainError as error:
            self._outbox.append((submit.deliver, error))
        except Exception as error:  # noqa: BLE001 - a fault of one request is that request's
            failure = InvalidRequest(f"The model can't take this request: {error!r}")
            self._outbox.append((submit.deliver, failure))

    def _cancel(self, request_id: int, batch: Batch) -> None:
        for request in list(self._waiting):
            if request.submit.id == request_id:
                self._waiting.remove(request)
        batch.remove(request_id)
        self._count(batch)

    def _admit(self, batch: Batch) -> None:
        width = self._link.options.max_batch_size
        room = width * self._link.card.context_length
        room -= sum(request.kv_tokens for request in batch.requests)
        wanted = [request.kv_tokens for request in self._waiting]
        for _ in range(admit(wanted, width - len(batch), room)):
            request = self._waiting.popleft()
            self._say(request, request.progress(0), *request.echo())
            if request.max_tokens:
                batch.add(request)
            else:
                self._say(request, End("length"))
        self._count(batch)

    def _step(self, batch: Batch) -> None:
        if not len(batch):
            return
        for request, said in batch.step():
            if isinstance(said, DomainError):
                self._outbox.append((request.submit.deliver, said))
            else:
                self._say(request, *said)
        self._link.heartbeat = time.monotonic()
        self._count(batch)

    def _say(self, request: Request, *outputs: EngineOutput) -> None:
        self._outbox += [(request.submit.deliver, output) for output in outputs]

    def _count(self, batch: Batch) -> None:
        self._link.stats = EngineStats(
            running=len(batch),
            waiting=len(self._waiting),
            steps=batch.steps,
            prefilled_tokens=batch.prefilled_tokens,
            generated_tokens=batch.generated_tokens,
            widest_batch=max(self._link.stats.widest_batch, len(batch)),
        )

    def _publish(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._link.publish(outbox)

    def _fail_all(self, batch: Batch, failure: DomainError) -> None:
        """Nothing that was accepted is lost: all of it hears of the end, mail unread included."""
        for request in [*self._waiting, *batch.requests]:
            self._outbox.append((request.submit.deliver, failure))
        self._waiting.clear()
        while not self._link.mail.empty():
            mail = self._link.mail.get()
            if isinstance(mail, Submit):
                self._outbox.append((mail.deliver, failure))
        self._link.stats = replace(self._link.stats, running=0, waiting=0)
        self._publish()
