"""Converts a model into a folder that is whole from the moment it is there. No mlx here."""

import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from adapters.mlx.prober import mlx_missing
from domain.conversion import Conversion
from domain.errors import EngineFailed, InvalidRequest, ModelUnusable
from domain.models import ModelCard


class MlxConverter:
    """Converts with mlx-lm, on the thread that calls: MLX's arrays belong to the thread that made
    them, and threads that end amid MLX's work abort the process.
    """

    def convert(self, card: ModelCard, target: Path, conversion: Conversion) -> None:
        """Raises InvalidRequest, ModelUnusable or EngineFailed."""
        _refuse_quantised(card)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _refuse_existing(target)
            # Beside the target, so that one rename makes all of it appear. A catalog takes no
            # folder whose name starts with a dot.
            with tempfile.TemporaryDirectory(prefix=".converting-", dir=target.parent) as folder:
                made = Path(folder) / target.name
                _code().convert(card, made, conversion)
                _refuse_existing(target)
                made.rename(target)
        except OSError as error:
            raise EngineFailed(f"`{card.id}` can't be converted: {error}") from error


def _code() -> Any:
    """Loaded at the first conversion, because mlx-lm takes seconds."""
    try:
        return import_module("adapters.mlx.convert")
    except ImportError as error:
        raise mlx_missing(error) from error


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise InvalidRequest(f"`{target}` is there already; delete it, or choose another name.")


def _refuse_quantised(card: ModelCard) -> None:
    """mlx-lm would leave quantised layers as they are, and say that all went well."""
    config = json.loads((card.location / "config.json").read_text("utf-8"))
    text = config.get("text_config")  # where models of several senses keep their language part
    for part in (config, text if isinstance(text, dict) else {}):
        if part.get("quantization") or part.get("quantization_config"):
            raise ModelUnusable(
                f"`{card.id}` is quantised already; convert the model in full precision that it "
                "was made from."
            )
