"""What the use cases say, as bodies."""

import time
from typing import Any

from adapters.http.management.models_schema import (
    AnyModelBody,
    CapabilitiesBody,
    EstimateBody,
    HeldModelBody,
    LocalModelBody,
    MemoryBody,
    ResidentBody,
    StatsBody,
)
from application.manage_models import ManagedModel
from application.pool_state import ResidentSnapshot
from domain.memory import MemoryNeed
from domain.residency import Estimate


def model_body(model: ManagedModel) -> AnyModelBody:
    card = model.listed.card
    known: dict[str, Any] = {
        "id": str(card.id),
        "state": model.listed.state,
        "size_bytes": card.weight_bytes,
        "quantization": card.quantization,
        "architecture": card.architecture,
        "context_length": model.listed.context_length,
        "max_context_length": card.context_length,
        "capabilities": CapabilitiesBody(
            chat_template=card.capabilities.chat_template,
            tools=card.capabilities.tools,
            thinking=card.capabilities.thinking,
        ),
        "pinned": model.pinned,
        "idle_ttl": model.idle_ttl,
        "last_used": None if model.idle is None else _moment(model.idle),
        "revision": card.revision,
        "newer_revision": model.listed.newer_revision,
        "location": str(card.location),
        "created": card.created,
    }
    if model.resident is None:
        return LocalModelBody(**known)
    return HeldModelBody(**known, **_held(model.resident))


def resident_body(resident: ResidentSnapshot) -> ResidentBody:
    return ResidentBody(
        id=str(resident.id),
        state=resident.state,
        context_length=resident.plan.context_length,
        pinned=resident.pinned,
        idle_ttl=resident.idle_ttl,
        last_used=_moment(resident.idle),
        **_held(resident),
    )


def _moment(seconds_ago: float) -> int:
    """Unix seconds; the pool has a clock that only counts."""
    return int(time.time() - seconds_ago)


def _held(resident: ResidentSnapshot) -> dict[str, Any]:
    """The fields of HeldBody."""
    stats = resident.stats
    return {
        "leases": resident.leases,
        "waiting": resident.waiting,
        "idle_seconds": round(resident.idle, 3),
        "memory": _held_memory(resident),
        "kv_bits": resident.plan.kv_bits,
        "concurrency": resident.plan.concurrency,
        "stats": StatsBody(
            running=stats.running,
            waiting=stats.waiting,
            steps=stats.steps,
            prefilled_tokens=stats.prefilled_tokens,
            generated_tokens=stats.generated_tokens,
            widest_batch=stats.widest_batch,
            kv_bytes=stats.kv_bytes,
            preemptions=stats.preemptions,
            drafted_tokens=stats.drafted_tokens,
            accepted_tokens=stats.accepted_tokens,
        ),
    }


def _held_memory(resident: ResidentSnapshot) -> MemoryBody:
    """As the ledger counts it: only the weights are measured after the load."""
    planned = resident.plan.need
    weights = resident.need - planned.kv_cache - planned.prefill
    return memory_body(MemoryNeed(weights, planned.kv_cache, planned.prefill))


def memory_body(need: MemoryNeed) -> MemoryBody:
    return MemoryBody(
        weights=need.weights, kv_cache=need.kv_cache, prefill=need.prefill, total=need.total
    )


def estimate_body(estimate: Estimate) -> EstimateBody:
    return EstimateBody(
        model=str(estimate.model),
        need=memory_body(estimate.need),
        context_length=estimate.plan.context_length,
        concurrency=estimate.plan.concurrency,
        kv_bits=estimate.plan.kv_bits,
        budget=estimate.budget,
        in_use=estimate.in_use,
        freeable=estimate.freeable,
        pinned=estimate.pinned,
        fit=estimate.fit,
        evict=[str(model) for model in estimate.evict],
        longest_context=estimate.longest_context,
        text=estimate.text,
    )
