"""What `--json` prints, by the names that `/api/v1` has for it."""

from dataclasses import asdict
from typing import Any

from domain.models import CachedModel, FoundModel, ListedModel, ModelId, PullProgress
from domain.residency import Estimate


def listed_document(listed: ListedModel) -> dict[str, Any]:
    card = listed.card
    return {
        "id": str(card.id),
        "size_bytes": card.weight_bytes,
        "quantization": card.quantization,
        "architecture": card.architecture,
        "context_length": listed.context_length,
        "max_context_length": card.context_length,
        "capabilities": asdict(card.capabilities),
        "revision": card.revision,
        "location": str(card.location),
        "created": card.created,
    }


def cached_document(cached: CachedModel) -> dict[str, Any]:
    return {
        "bytes_on_disk": cached.bytes_on_disk,
        "last_used": int(cached.last_used),
        "whole": cached.whole,
    }


def found_document(found: FoundModel, *, cached: bool) -> dict[str, Any]:
    return {
        "id": str(found.id),
        "downloads": found.downloads,
        "likes": found.likes,
        "updated": found.updated,
        "size_bytes": found.size,
        "quantization": found.quantization,
        "gated": found.gated,
        "cached": cached,
    }


def progress_document(model: ModelId, progress: PullProgress) -> dict[str, Any]:
    return {
        "model": str(model),
        "commit": progress.revision or None,
        "phase": progress.phase,
        "bytes_done": progress.bytes_done,
        "bytes_total": progress.bytes_total,
        "files_done": progress.files_done,
        "files_total": progress.files_total,
        "bytes_per_second": progress.bytes_per_second,
        "seconds_left": progress.seconds_left,
    }


def estimate_document(estimate: Estimate) -> dict[str, Any]:
    return {
        "model": str(estimate.model),
        "need": asdict(estimate.need) | {"total": estimate.need.total},
        "context_length": estimate.plan.context_length,
        "concurrency": estimate.plan.concurrency,
        "kv_bits": estimate.plan.kv_bits,
        "budget": estimate.budget,
        "in_use": estimate.in_use,
        "freeable": estimate.freeable,
        "pinned": estimate.pinned,
        "fit": estimate.fit,
        "evict": [str(model) for model in estimate.evict],
        "longest_context": estimate.longest_context,
        "text": estimate.text,
    }
