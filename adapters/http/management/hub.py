"""The hub and the disk: what could be downloaded, and what has been."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from adapters.http.management.openapi import errors
from adapters.http.wire import WireModel
from application.manage_models import SearchHit, SearchModels
from domain.models import DiskUse

GetDiskUse = Callable[[], Awaitable[DiskUse]]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("search_text", "the text must be one printable line")
    return text


SearchText = Annotated[
    str,
    Query(max_length=200, description="Words of the name; empty: the most downloaded of all"),
    AfterValidator(_printable),
]
Limit = Annotated[int, Query(ge=1, le=100)]


class FoundBody(WireModel):
    """A model on the hub. What the hub does not say is null."""

    id: str
    downloads: int = Field(description="Of the last 30 days")
    likes: int
    updated: str = Field(description="ISO 8601")
    size_bytes: int | None = Field(description="Its weights")
    quantization: str | None
    gated: bool = Field(description="Its licence has to be accepted on the hub first")
    cached: bool = Field(description="It is on this machine already")


class SearchBody(WireModel):
    data: list[FoundBody]


class CachedBody(WireModel):
    """A model's share of the disk, all revisions and unfinished downloads included."""

    id: str
    bytes_on_disk: int
    last_used: int = Field(description="Unix seconds")
    whole: bool = Field(description="It can be loaded; otherwise its download is unfinished")


class CacheBody(WireModel):
    """The cache of downloaded models."""

    location: str
    free_bytes: int = Field(description="On its disk")
    used_bytes: int = Field(description="By models")
    models: list[CachedBody]


def router(search: SearchModels, disk_use: GetDiskUse) -> APIRouter:
    """`/api/v1/search` and `/api/v1/cache`."""
    routes = APIRouter()

    @routes.get("/search", responses=errors(400, 403, 502, 503))
    async def search_hub(q: SearchText = "", limit: Limit = 20) -> SearchBody:
        """MLX models on the hub whose names match, the most downloaded first."""
        return SearchBody(data=[found_body(hit) for hit in await search(q, limit)])

    @routes.get("/cache")
    async def get_cache() -> CacheBody:
        """What the downloaded models take of the disk."""
        return cache_body(await disk_use())

    return routes


def found_body(hit: SearchHit) -> FoundBody:
    found = hit.found
    return FoundBody(
        id=str(found.id),
        downloads=found.downloads,
        likes=found.likes,
        updated=found.updated,
        size_bytes=found.size,
        quantization=found.quantization,
        gated=found.gated,
        cached=hit.here,
    )


def cache_body(use: DiskUse) -> CacheBody:
    return CacheBody(
        location=str(use.location),
        free_bytes=use.free,
        used_bytes=use.used,
        models=[
            CachedBody(
                id=str(model.id),
                bytes_on_disk=model.bytes_on_disk,
                last_used=int(model.last_used),
                whole=model.whole,
            )
            for model in use.models
        ],
    )
