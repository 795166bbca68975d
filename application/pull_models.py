"""Downloads as jobs: started once however many ask, watched, cancelled and resumed."""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum

from application.feed import Feed
from application.ports import ModelSource, PullJournal, PullOrder
from domain.errors import DomainError, HubFailed, JobNotFound, ShuttingDown
from domain.models import ModelId, PullPhase, PullProgress

logger = logging.getLogger("portico.pulls")

_REMEMBERED = 100  # jobs that have ended
_MOST_RESTARTS = 20  # that get no further: what ends each server may be the download
_CLOSING_PATIENCE = 10.0  # seconds; a hung download must not hang the exit


class JobState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class PullJob:
    """One download, at a moment in time. revision: as it was asked for; None is the newest."""

    id: str
    model: ModelId
    revision: str | None
    state: JobState
    progress: PullProgress
    error: DomainError | None = None


class PullModels:
    """Runs downloads in the background; one at a time for each model and revision.

    What is in the journal was accepted, and has neither come whole, nor failed for good, nor been
    cancelled.
    """

    def __init__(self, source: ModelSource, journal: PullJournal) -> None:
        self._source = source
        self._journal = journal
        self._jobs: dict[str, PullJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)
        self._feeds: dict[str, Feed[PullJob]] = {}
        self._restarted: set[str] = set()  # jobs that have got no further yet
        self._closing = False

    def recover(self) -> None:
        """Go on with the downloads that were under way when their server ended."""
        for order in self._journal.claim():
            if order.restarts >= _MOST_RESTARTS:
                logger.warning("%s: %d restarts got it no further", order.model, order.restarts)
                self._journal.erase(order.id)
            elif self._same(order.model, order.revision):
                self._journal.erase(order.id)
            else:
                logger.info("%s: job %s goes on with its download", order.model, order.id)
                self._journal.write(replace(order, restarts=order.restarts + 1))
                self._restarted.add(order.id)
                self._numbers = itertools.count(int(order.id) + 1)
                self._begin(order.id, order.model, order.revision)

    def all(self) -> tuple[PullJob, ...]:
        """In the order in which they were started."""
        return tuple(self._jobs.values())

    def find(self, job: str) -> PullJob:
        """Raises JobNotFound."""
        if job not in self._jobs:
            raise JobNotFound(job)
        return self._jobs[job]

    def running(self, model: ModelId) -> PullJob | None:
        """A job that is downloading this model just now, whichever revision."""
        jobs = self._jobs.values()
        return next((j for j in jobs if j.model == model and j.state is JobState.RUNNING), None)

    def start(self, model: ModelId, revision: str | None = None) -> PullJob:
        """A new job, or the one that downloads this very thing already. Raises ShuttingDown."""
        if self._closing:
            raise ShuttingDown
        if running := self._same(model, revision):
            return running
        self._give_up(model, revision)  # an older job, which this one stands for
        order = PullOrder(str(next(self._numbers)), model, revision)
        self._journal.write(order)
        job = self._begin(order.id, model, revision)
        self._forget_old()
        return job

    def resume(self, job: str) -> PullJob:
        """Go on with a job that failed or was cancelled; others stay as they are.

        Raises JobNotFound or ShuttingDown.
        """
        found = self.find(job)
        if self._closing:
            raise ShuttingDown
        if found.state in {JobState.FAILED, JobState.CANCELLED}:
            found = replace(found, state=JobState.RUNNING, error=None)
            self._jobs[job] = found
            self._journal.write(PullOrder(job, found.model, found.revision))
            self._run(found)
        return found

    async def cancel(self, job: str) -> PullJob:
        """Stop it; what has come is kept for a later resume. Raises JobNotFound."""
        found = self.find(job)
        self._journal.erase(job)
        if found.state is JobState.RUNNING:
            task = self._tasks[job]
            task.cancel()
            await asyncio.wait([task])
        return self.find(job)

    async def watch(self, job: str) -> AsyncGenerator[PullJob, None]:
        """The job as it is now, then at every change, until it has ended. Raises JobNotFound."""
        now = self.find(job)
        if now.state is not JobState.RUNNING:
            yield now
            return
        async with aclosing(self._feeds[job].listen()) as changes:
            yield now
            async for change in changes:
                yield change

    async def close(self) -> None:
        """Stop all of them; the next server goes on."""
        self._closing = True
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING_PATIENCE)
        self._journal.close()

    def deleted(self, model: ModelId) -> None:
        """Nobody wants it any more: no restart goes on with what failed of it."""
        for revision in {job.revision for job in self._jobs.values() if job.model == model}:
            self._give_up(model, revision)

    def _give_up(self, model: ModelId, revision: str | None) -> None:
        for job in self._jobs.values():
            wanted = job.state is JobState.RUNNING
            if (job.model, job.revision) == (model, revision) and not wanted:
                self._journal.erase(job.id)

    def _same(self, model: ModelId, revision: str | None) -> PullJob | None:
        """The job that downloads this very thing."""
        wanted = (model, revision, JobState.RUNNING)
        jobs = self._jobs.values()
        return next((j for j in jobs if (j.model, j.revision, j.state) == wanted), None)

    def _begin(self, number: str, model: ModelId, revision: str | None) -> PullJob:
        job = PullJob(number, model, revision, JobState.RUNNING, PullProgress(PullPhase.RESOLVING))
        self._jobs[number] = job
        self._run(job)
        return job

    def _run(self, job: PullJob) -> None:
        self._feeds[job.id] = Feed()
        task = asyncio.get_running_loop().create_task(self._pull(job))
        self._tasks[job.id] = task
        task.add_done_callback(lambda task: self._ended(job.id, task))

    async def _pull(self, job: PullJob) -> None:
        async with aclosing(self._source.pull(job.model, job.revision)) as progresses:
            begun: int | None = None  # bytes that were here
            async for progress in progresses:
                self._change(job.id, progress=progress)
                if progress.phase is PullPhase.DOWNLOADING:
                    begun = progress.bytes_done if begun is None else begun
                    self._got_on(job, progress.bytes_done - begun)

    def _got_on(self, job: PullJob, count: int) -> None:
        if count > 0 and job.id in self._restarted:
            self._restarted.remove(job.id)
            self._journal.write(PullOrder(job.id, job.model, job.revision))

    def _ended(self, job: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[job]
        error = None if task.cancelled() else task.exception()
        if not self._goes_on(error, cancelled=task.cancelled()):
            self._journal.erase(job)
        if task.cancelled() and self._closing:  # the next server goes on
            self._change(job, state=JobState.FAILED, error=ShuttingDown())
        elif task.cancelled():
            self._change(job, state=JobState.CANCELLED)
        elif isinstance(error, DomainError):
            self._change(job, state=JobState.FAILED, error=error)
        elif error:
            logger.error("a download failed", exc_info=error)
            self._change(job, state=JobState.FAILED, error=DomainError("The download failed."))
        else:
            self._change(job, state=JobState.DONE)
        self._feeds.pop(job).close()

    def _goes_on(self, error: BaseException | None, *, cancelled: bool) -> bool:
        """After a restart. By itself no job is run again before one."""
        passes = isinstance(error, HubFailed) and error.fault.passes
        return passes or (self._closing and (cancelled or error is not None))

    def _change(self, job: str, **changes: object) -> None:
        changed = replace(self._jobs[job], **changes)  # type: ignore[arg-type]
        self._jobs[job] = changed
        self._feeds[job].say(changed)

    def _forget_old(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.state is not JobState.RUNNING]
        for job in ended[: max(len(ended) - _REMEMBERED, 0)]:
            del self._jobs[job]
            self._journal.erase(job)
