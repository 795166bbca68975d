"""What a kept state depends on, besides the tokens. Worker thread only."""

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from adapters.mlx.prefix_store import PrefixStore
from adapters.mlx.snapshot import Unkeepable, layout
from domain.models import ModelCard

logger = logging.getLogger("portico.prefixes")


def open_store(
    root: Path, card: ModelCard, kv_bits: int | None, caches: Sequence[Any], budget_bytes: int
) -> PrefixStore | None:
    """None where states can't be kept on disk: why is logged.

    caches: empty ones, as a request of this model begins with.
    """
    try:
        kinds = layout(caches)
        mark = fingerprint(card, kv_bits, kinds)
        return PrefixStore(root, str(card.id), mark, kinds, budget_bytes)
    except (OSError, Unkeepable) as error:
        logger.warning("Prompts of `%s` are not kept on disk: %s", card.id, error)
        return None


def fingerprint(card: ModelCard, kv_bits: int | None, layout: Sequence[Any]) -> str:
    """The same only for what computes the same states. Raises OSError.

    The weights' sizes and times stand for what is in them, as reading them all would take long.
    """
    weights = [
        (file.name, stat.st_size, stat.st_mtime_ns)
        for file in sorted(card.location.glob("*.safetensors"))
        for stat in [file.stat()]
    ]
    config = (card.location / "config.json").read_bytes()
    facts = {
        "model": str(card.id),
        "revision": card.revision,
        "weights": weights,
        "config": hashlib.sha256(config).hexdigest(),
        "kv_bits": kv_bits,
        "layout": layout,
        "versions": [version("mlx"), version("mlx-lm")],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
