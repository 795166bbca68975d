"""Downloads on the wire."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from adapters.http.wire import ErrorDetail, WireModel
from application.pull_models import JobState
from domain.models import PullPhase


def _without_climbing(revision: str) -> str:
    if ".." in revision:  # git has no such names either, and somebody may make a path of it
        raise PydanticCustomError("revision", "a revision has no two dots in a row")
    return revision


# A branch, a tag or a commit. No laxer than what the source takes: a job that can only fail is
# not worth starting.
_REVISION = r"^[A-Za-z0-9_][A-Za-z0-9_.+@-]*(/[A-Za-z0-9_][A-Za-z0-9_.+@-]*)*\z"

Revision = Annotated[
    str,
    Field(pattern=_REVISION, max_length=200),
    AfterValidator(_without_climbing),
]


class PullRequest(WireModel):
    model: str
    revision: Revision | None = Field(
        None, description="A branch, tag or commit; the newest when absent"
    )


class JobBody(WireModel):
    """A download. Bytes and files are those of the model as a whole."""

    id: str
    model: str
    revision: str | None = Field(description="As it was asked for; null is the newest")
    commit: str | None = Field(description="What is downloaded, once the hub has said")
    state: JobState
    phase: PullPhase
    bytes_done: int
    bytes_total: int = Field(description="0 while nobody knows")
    files_done: int
    files_total: int
    bytes_per_second: float = Field(description="Over the last seconds")
    seconds_left: float | None = Field(description="null while nobody can tell")
    error: ErrorDetail | None = Field(description="Why it failed")


class JobsBody(WireModel):
    data: list[JobBody]
