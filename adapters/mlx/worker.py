"""The only thread that touches mlx for one model: it loads, steps and unloads."""

import gc
import queue
import time
from collections import deque
from dataclasses import replace

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, GenerationBatch, PromptProcessingBatch

from adapters.mlx import gpu
from adapters.mlx.mailbox import Cancel, Close, Deliver, Link, Loaded, Submit
from adapters.mlx.model import LoadedModel, load
from adapters.mlx.request import Request
from domain.batching import admit
from domain.errors import DomainError, EngineFailed, InvalidRequest, ShuttingDown
from domain.outputs import EngineOutput


class Worker:
    """Between steps it takes mail and admits; after a step it makes one hop to the event loop
    for the whole batch. A fault of one request fails that request; a fault of the step fails
    every request, and ends the thread.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[Request] = deque()
        self._running: dict[int, Request] = {}
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
            self._link.loaded.set_exception(EngineFailed(text))
        else:
            self._link.loaded.set_result(Loaded(model.markup, model.footprint))
            self._serve(model)
            del model
        gc.collect()
        mx.clear_cache()
        self._link.closed.set_result(None)

    def _serve(self, model: LoadedModel) -> None:
        width = self._link.options.max_batch_size
        batch = BatchGenerator(
            model.network,
            stop_tokens=[(token,) for token in model.tokenizer.eos_token_ids],
            completion_batch_size=width,
            prefill_batch_size=min(8, width),
        )
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
            batch.close()
            self._fail_all(self._link.failure or ShuttingDown())

    def _take_mail(self, model: LoadedModel, batch: BatchGenerator) -> bool:
        """Handle what has come; wait for something when there is nothing else to do."""
        while True:
            try:
                mail = self._link.mail.get(block=not (self._running or self._waiting))
            except queue.Empty:
                return True
            match mail:
                case Submit():
                    self._accept(mail, model)
                case Cancel():
                    self._cancel(mail.id, batch)
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

    def _cancel(self, request_id: int, batch: BatchGenerator) -> None:
        for request in list(self._waiting):
            if request.submit.id == request_id:
                self._waiting.remove(request)
        for request in list(self._running.values()):
            if request.submit.id == request_id:
                batch.remove([request.uid])
                del self._running[request.uid]
        self._count()

    def _admit(self, batch: BatchGenerator) -> None:
        width = self._link.options.max_batch_size
        room = width * self._link.card.context_length
        room -= sum(request.kv_tokens for request in self._running.values())
        slots = width - len(self._running)
        for _ in range(admit([r.kv_tokens for r in self._waiting], slots, room)):
            request = self._waiting.popleft()
            (request.uid,) = batch.insert(
                [request.tokens],
                max_tokens=[request.max_tokens],
                samplers=[request.sampler],
                logits_processors=[request.processors],
            )
            self._running[request.uid] = request
            self._outbox.append((request.submit.deliver, request.progress(0)))
        self._count()

    def _step(self, batch: BatchGenerator) -> None:
        if not self._running:
            return
        prompts, responses = batch.next()
        self._link.heartbeat = time.monotonic()
        for progress in prompts:
            self._note_prefill(progress)
        for response in responses:
            self._note_token(response)
        if responses:
            self._link.stats = replace(
                self._link.stats,
                steps=self._link.stats.steps + 1,
                generated_tokens=self._link.stats.generated_tokens + len(responses),
            )
        self._count()

    def _note_prefill(self, progress: PromptProcessingBatch.Response) -> None:
        request = self._running[progress.uid]
        self._outbox.append((request.submit.deliver, request.progress(progress.progress[0])))

    def _note_token(self, response: GenerationBatch.Response) -> None:
        request = self._running[response.uid]
        self._outbox += [(request.submit.deliver, out) for out in request.outputs(response)]
        if response.finish_reason is not None:
            del self._running[response.uid]

    def _count(self) -> None:
        running = len(self._running)
        self._link.stats = replace(
            self._link.stats,
            running=running,
            waiting=len(self._waiting),
            widest_batch=max(self._link.stats.widest_batch, running),
        )

    def _publish(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._link.publish(outbox)

    def _fail_all(self, failure: DomainError) -> None:
        """Nothing that was accepted is lost: all of it hears of the end, mail unread included."""
        for request in [*self._waiting, *self._running.values()]:
            self._outbox.append((request.submit.deliver, failure))
        self._waiting.clear()
        self._running.clear()
        while not self._link.mail.empty():
            mail = self._link.mail.get()
            if isinstance(mail, Submit):
                self._outbox.append((mail.deliver, failure))
        self._count()
        self._publish()
