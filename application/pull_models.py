"""Downloads as jobs: started once however many ask, watched, cancelled and resumed."""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum

from application.feed import Feed
from application.ports import ModelSource
from domain.errors import DomainError, JobNotFound, ShuttingDown
from domain.models import ModelId, PullPhase, PullProgress

logger = logging.getLogger("portico.pulls")

_REMEMBERED = 100  # jobs that have ended
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
    """Runs downloads in the background; one at a time for each model."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._jobs: dict[str, PullJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)
        self._feeds: dict[str, Feed[PullJob]] = {}
        self._closing = False

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
        for job in self._jobs.values():
            if (job.model, job.revision, job.state) == (model, revision, JobState.RUNNING):
                return job
        number = str(next(self._numbers))
        job = PullJob(number, model, revision, JobState.RUNNING, PullProgress(PullPhase.RESOLVING))
        self._jobs[number] = job
        self._run(job)
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
            self._run(found)
        return found

    async def cancel(self, job: str) -> PullJob:
        """Stop it; what has come is kept for a later resume. Raises JobNotFound."""
        found = self.find(job)
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
        """Stop all of them."""
        self._closing = True
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING_PATIENCE)

    def _run(self, job: PullJob) -> None:
        self._feeds[job.id] = Feed()
        task = asyncio.get_running_loop().create_task(self._pull(job))
        self._tasks[job.id] = task
        task.add_done_callback(lambda task: self._ended(job.id, task))

    async def _pull(self, job: PullJob) -> None:
        async with aclosing(self._source.pull(job.model, job.revision)) as progresses:
            async for progress in progresses:
                self._change(job.id, progress=progress)

    def _ended(self, job: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[job]
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self._change(job, state=JobState.CANCELLED)
        elif isinstance(error, DomainError):
            self._change(job, state=JobState.FAILED, error=error)
        elif error:
            logger.error("a download failed", exc_info=error)
            self._change(job, state=JobState.FAILED, error=DomainError("The download failed."))
        else:
            self._change(job, state=JobState.DONE)
        self._feeds.pop(job).close()

    def _change(self, job: str, **changes: object) -> None:
        changed = replace(self._jobs[job], **changes)  # type: ignore[arg-type]
        self._jobs[job] = changed
        self._feeds[job].say(changed)

    def _forget_old(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.state is not JobState.RUNNING]
        for job in ended[: max(len(ended) - _REMEMBERED, 0)]:
            del self._jobs[job]
