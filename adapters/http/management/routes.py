"""The management dialect: `/api/v1`, Portico's own."""

from dataclasses import dataclass

from fastapi import APIRouter

from adapters.http.management import hub, models, pulls, status
from application.manage_models import DeleteModel, DescribeModels, SearchModels
from application.model_pool import ModelPool
from application.pull_models import PullModels


@dataclass(frozen=True, slots=True)
class Management:
    """The use cases that an operator has beyond those of a client."""

    pool: ModelPool
    describe: DescribeModels
    delete: DeleteModel
    pulls: PullModels
    search: SearchModels
    disk_use: hub.GetDiskUse


def router(use: Management, patience: float, *, allow_pulls: bool) -> APIRouter:
    """All of it. patience: seconds between the heartbeats of a stream."""
    routes = APIRouter(prefix="/api/v1", tags=["management"])
    routes.include_router(
        models.router(use.describe, use.delete, use.pool, allow_pulls=allow_pulls)
    )
    routes.include_router(status.router(use.pool, patience))
    routes.include_router(pulls.router(use.pulls, patience, allow_pulls=allow_pulls))
    routes.include_router(hub.router(use.search, use.disk_use))
    return routes
