"""Downloads as jobs: start, look, watch, cancel, resume."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from adapters.http.errors import failure_frame, render_error
from adapters.http.guard import pulls_allowed
from adapters.http.management.openapi import errors, events
from adapters.http.management.pulls_schema import JobBody, JobsBody, PullRequest
from adapters.http.sse import SseResponse, frame
from adapters.http.strict_json import StrictJsonRoute
from application.pull_models import JobState, PullJob, PullModels
from domain.models import ModelId

JobInPath = Annotated[str, Path(description="As the start of the download answered")]


def router(pulls: PullModels, patience: float, *, allow_pulls: bool) -> APIRouter:
    """`/api/v1/pulls`. patience: seconds between the heartbeats of a stream."""
    routes = APIRouter(prefix="/pulls", route_class=StrictJsonRoute)
    if_allowed = [Depends(pulls_allowed(allow_pulls))]

    @routes.post("", status_code=202, responses=errors(400, 403, 503), dependencies=if_allowed)
    async def start_pull(body: PullRequest) -> JobBody:
        """Download a model from the hub, in the background.

        What is being downloaded already is not started again: the answer is its job.
        """
        return job_body(pulls.start(ModelId.parse(body.model), body.revision))

    @routes.get("")
    async def list_pulls() -> JobsBody:
        """Every download since the server began, those that it took over from one before it
        included, but for old ones that have ended.
        """
        return JobsBody(data=[job_body(job) for job in pulls.all()])

    @routes.get("/{job_id}", responses=errors(404))
    async def get_pull(job_id: JobInPath) -> JobBody:
        """One download."""
        return job_body(pulls.find(job_id))

    @routes.get(
        "/{job_id}/events",
        status_code=200,
        response_class=SseResponse,
        responses=errors(404)
        | events(JobBody, "`progress` until it has ended; then `done`, `failed` or `cancelled`"),
    )
    async def watch_pull(job_id: JobInPath) -> SseResponse:
        """One download, at every change until it has ended."""
        return SseResponse(_frames(pulls, job_id), failure_frame, patience)

    @routes.post("/{job_id}/cancel", responses=errors(404))
    async def cancel_pull(job_id: JobInPath) -> JobBody:
        """Stop a download. What has come is kept; one that has ended stays as it is."""
        return job_body(await pulls.cancel(job_id))

    @routes.post("/{job_id}/resume", responses=errors(403, 404, 503), dependencies=if_allowed)
    async def resume_pull(job_id: JobInPath) -> JobBody:
        """Go on with a download that failed or was cancelled; others stay as they are."""
        return job_body(pulls.resume(job_id))

    return routes


def job_body(job: PullJob) -> JobBody:
    progress = job.progress
    return JobBody(
        id=job.id,
        model=str(job.model),
        revision=job.revision,
        commit=progress.revision or None,
        state=job.state,
        phase=progress.phase,
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        files_done=progress.files_done,
        files_total=progress.files_total,
        bytes_per_second=progress.bytes_per_second,
        seconds_left=progress.seconds_left,
        error=render_error(job.error).detail if job.error else None,
    )


async def _frames(pulls: PullModels, job_id: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(pulls.watch(job_id)) as changes:
        async for job in changes:
            event = "progress" if job.state is JobState.RUNNING else job.state.value
            yield frame(job_body(job).model_dump_json(), event)
