"""A conversion by mlx-lm's own `convert`. Nothing is looked up, nothing is uploaded, and no code
that comes with a model is run or copied.
"""

import contextlib
import io
import logging
from pathlib import Path

from mlx_lm.convert import convert as convert_with_mlx_lm
from safetensors import safe_open

from adapters.mlx.files import check
from domain.conversion import Conversion
from domain.errors import InvalidRequest, ModelUnusable
from domain.models import ModelCard

# What mlx-lm, transformers and MLX raise over a model that they can't take.
_FAILURES = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def convert(card: ModelCard, target: Path, conversion: Conversion) -> None:
    """Write the converted model to `target`, which must not exist.

    Raises ModelUnusable, InvalidRequest (nothing was quantised) and OSError.
    """
    check(card.location)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        # mlx-lm tells stdout what it does, which is for our own words.
        with contextlib.redirect_stdout(io.StringIO()):
            convert_with_mlx_lm(
                str(card.location),  # a folder that is there: mlx-lm asks no hub for it
                str(target),
                quantize=True,
                q_bits=conversion.bits,
                q_group_size=conversion.group_size,
                dtype=conversion.dtype,
                trust_remote_code=False,
            )
    except _FAILURES as error:
        raise ModelUnusable(f"`{card.id}` could not be converted: {error}") from error
    for program in target.glob("*.py"):
        program.unlink()
    check(target)
    _require_scales(target, conversion)


def _require_scales(folder: Path, conversion: Conversion) -> None:
    """mlx-lm passes over layers whose size is no multiple of the group's."""
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as weights:
            if any(name.endswith(".scales") for name in weights.keys()):
                return
    raise InvalidRequest(
        f"No layer's size is a multiple of {conversion.group_size}; choose a smaller group size."
    )
