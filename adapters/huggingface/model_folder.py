"""A folder with a model in it, as a card."""

import json
import logging
from pathlib import Path
from typing import Any

from adapters.huggingface.chat_templates import capabilities
from adapters.huggingface.hub_models import quantization_of
from adapters.huggingface.manifest import CONFIG, has_tokenizer
from adapters.huggingface.weights import tensor_bytes, weight_files
from domain.errors import InvalidRequest
from domain.models import ModelCard, ModelId

logger = logging.getLogger("portico.catalog")

# Where the architectures of the field keep the length of their context.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_UNSTATED_CONTEXT = 8192  # for the few (recurrent ones) that state none

# What files that are not what they should be lead to.
_MALFORMED = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)

_State = tuple[tuple[str, int, int], ...]


class CardReader:
    """Reads a folder again only when its files have changed: headers and templates are long."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, Path], tuple[_State, ModelCard | None]] = {}

    def card(self, name: str, revision: str, location: Path) -> ModelCard | None:
        """None for a folder that is not a whole model in safetensors form."""
        state = _state(location)
        known = self._read.get((name, location))
        if known is None or known[0] != state:
            known = (state, _card(name, revision, location))
            self._read[name, location] = known
        return known[1]


def _state(location: Path) -> _State:
    try:
        return tuple(
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(location.iterdir())
            if path.is_file()
        )
    except OSError:
        return ()


def _card(name: str, revision: str, location: Path) -> ModelCard | None:
    try:
        config = _config(location)
        weights = weight_files(location)
        if not config or not weights or not has_tokenizer(p.name for p in location.iterdir()):
            return None
        return ModelCard(
            ModelId.parse(name),
            revision,
            location,
            sum(tensor_bytes(file) for file in weights),
            _context_length(config),
            int((location / CONFIG).stat().st_mtime),
            str(config["model_type"]),
            quantization_of(config),
            capabilities(location),
        )
    except (*_MALFORMED, InvalidRequest) as error:
        logger.warning("%s is left out: %r", location, error)
        return None


def _config(location: Path) -> dict[str, Any] | None:
    """None while there is none, or one that names no architecture."""
    file = location / CONFIG
    config = json.loads(file.read_text("utf-8")) if file.is_file() else None
    return config if isinstance(config, dict) and "model_type" in config else None


def _context_length(config: dict[str, Any]) -> int:
    text = config.get("text_config")  # where models of several senses keep their language part
    for source in (config, text if isinstance(text, dict) else {}):
        for key in _CONTEXT_KEYS:
            length = source.get(key)
            if isinstance(length, int) and length > 0:
                return length
    return _UNSTATED_CONTEXT
