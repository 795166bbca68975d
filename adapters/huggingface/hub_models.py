"""What the hub's list says of a model, as `search` tells it."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from domain.errors import InvalidRequest
from domain.models import FoundModel, ModelId

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

# What one call for a list can give.
EXPANDED = (
    "config",
    "downloads",
    "gated",
    "lastModified",
    "library_name",
    "likes",
    "safetensors",
    "tags",
)

_BITS = re.compile(r"(?<![a-z0-9])([2-8])[-_]?bit(?![a-z])", re.IGNORECASE)
_FLOATING = re.compile(r"(?<![a-z0-9])(mxfp4|mxfp8|nvfp4)(?![a-z0-9])", re.IGNORECASE)
_DTYPE_BITS = re.compile(r"(\d+)")


def found_models(infos: "Iterable[ModelInfo]") -> tuple[FoundModel, ...]:
    """The most downloaded first; without those whose ids could not be asked for."""
    found = [model for info in infos for model in _found(info)]
    return tuple(sorted(found, key=lambda model: model.downloads, reverse=True))


def quantization_of(config: object) -> str | None:
    """ "4-bit", from a model's config. None for full precision."""
    settings = config if isinstance(config, dict) else {}
    for key in ("quantization", "quantization_config"):
        quantization = settings.get(key)
        bits = quantization.get("bits") if isinstance(quantization, dict) else None
        if isinstance(bits, int) and not isinstance(bits, bool):
            return f"{bits}-bit"
    return None


def _found(info: "ModelInfo") -> list[FoundModel]:
    try:
        model = ModelId.parse(info.id)
    except InvalidRequest:
        return []
    updated = info.last_modified.isoformat() if info.last_modified else ""
    return [
        FoundModel(
            model,
            info.downloads or 0,
            info.likes or 0,
            updated,
            _size(info),
            quantization_of(info.config) or _named_quantization([*(info.tags or []), info.id]),
            bool(info.gated),
        )
    ]


def _size(info: "ModelInfo") -> int | None:
    """The parameters are counted by type ({"BF16": 5, "U32": 9}), in the words of the file."""
    if not info.safetensors:
        return None
    widths = [(_width(dtype), count) for dtype, count in info.safetensors.parameters.items()]
    return sum(width * count for width, count in widths if width) // 8 or None


def _width(dtype: str) -> int:
    """In bits; 0 for an unknown type."""
    if dtype == "BOOL":
        return 8
    digits = _DTYPE_BITS.search(dtype)
    return int(digits[1]) if digits else 0


def _named_quantization(names: Iterable[str]) -> str | None:
    for name in names:
        if bits := _BITS.search(name):
            return f"{bits[1]}-bit"
        if floating := _FLOATING.search(name):
            return f"{floating[1][-1]}-bit"
    return None
