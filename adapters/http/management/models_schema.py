"""Models on the wire, with what they hold in memory. Sizes are in bytes, contexts in tokens."""

from typing import Literal

from pydantic import Field

from adapters.http.wire import WireModel
from domain.models import ModelState
from domain.residency import Fit


class CapabilitiesBody(WireModel):
    """What a model's chat template lets it do; none of it without a template."""

    chat_template: bool
    tools: bool
    thinking: bool


class MemoryBody(WireModel):
    """What a model holds, or would."""

    weights: int = Field(description="Estimated from its files; measured once it is loaded")
    kv_cache: int = Field(description="The reserve for the caches of its requests")
    prefill: int = Field(description="What comes and goes while a prompt is computed")
    total: int


class StatsBody(WireModel):
    """What an engine is doing, and what it has done since it was loaded."""

    running: int = Field(description="Requests in the batch")
    waiting: int = Field(description="Requests that were accepted and have no place in it yet")
    steps: int = Field(description="Decode steps; one gives every running request a token or more")
    prefilled_tokens: int = Field(description="Prompt tokens computed, those from a cache aside")
    generated_tokens: int
    widest_batch: int = Field(description="The most requests that ever ran at once")
    kv_bytes: int = Field(description="What the running requests hold of the reserve")
    preemptions: int = Field(description="Times a request gave up its place to another")
    drafted_tokens: int = Field(description="Guesses, of a draft model or from the text itself")
    accepted_tokens: int = Field(description="Those of them that were right")


class KnownBody(WireModel):
    """What there is to know of a model wherever it is."""

    id: str
    state: ModelState
    context_length: int = Field(description="The most tokens that a request may hold here")
    pinned: bool = Field(description="It never leaves memory by itself")
    idle_ttl: float | None = Field(description="Seconds without a request until it leaves")
    last_used: int | None = Field(
        description="Unix seconds; null if it has not been in memory since the server began"
    )


class HeldBody(WireModel):
    """What there is to know of a model only while it holds memory."""

    leases: int = Field(description="Requests that it is answering, or that wait in its batch")
    waiting: int = Field(description="Requests that wait for its load")
    idle_seconds: float = Field(description="Since its last request ended; 0 while it has one")
    memory: MemoryBody
    kv_bits: int | None = Field(description="Its KV caches are quantised to so many bits")
    concurrency: int = Field(description="Requests of full length that the reserve holds")
    stats: StatsBody


# Fields stand in the order of the bases, the last one's first.
class ResidentBody(HeldBody, KnownBody):
    """A model that holds memory: loaded, or loading."""


class LocalModelBody(KnownBody):
    """A model on this machine."""

    max_context_length: int = Field(description="The model's own")
    size_bytes: int = Field(description="Its weights")
    quantization: str | None = Field(description="null for full precision")
    architecture: str
    capabilities: CapabilitiesBody
    revision: str = Field(description="The commit on the hub; empty for a folder")
    newer_revision: str | None = Field(
        description="On the disk, while another one is in memory; the next load takes it"
    )
    location: str
    created: int = Field(description="Unix seconds")


class HeldModelBody(HeldBody, LocalModelBody):
    """A model on this machine that holds memory: loaded, or loading."""


AnyModelBody = HeldModelBody | LocalModelBody


class ModelsBody(WireModel):
    data: list[AnyModelBody]


class LoadRequest(WireModel):
    """`wait: false` refuses rather than wait until requests to other models have ended."""

    model: str
    pin: bool | None = Field(None, description="Pin or unpin it as well")
    wait: bool = True


class UnloadRequest(WireModel):
    """`force` ends the requests that it is answering."""

    model: str
    force: bool = False


class UnloadedBody(WireModel):
    model: str
    was_loaded: bool


class PinRequest(WireModel):
    model: str
    pinned: bool


class DeletedBody(WireModel):
    model: str
    freed_bytes: int = Field(description="Of the disk")


class EstimateRequest(WireModel):
    """What is absent is as it is set for the model."""

    model: str
    context_length: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1, description="Requests of full length at once")
    kv_bits: Literal[4, 8] | None = None


class EstimateBody(WireModel):
    model: str
    need: MemoryBody
    context_length: int
    concurrency: int
    kv_bits: int | None
    budget: int = Field(description="For all models together")
    in_use: int = Field(description="By other models")
    freeable: int = Field(description="By evicting models that are idle")
    pinned: int = Field(description="By models that never leave by themselves")
    fit: Fit
    evict: list[str] = Field(description="Who would have to go")
    longest_context: int = Field(description="At which one request could ever fit; 0 for none")
    text: str = Field(description="The numbers and what to do about them, as refusals say it")
