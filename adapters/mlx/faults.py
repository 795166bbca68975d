"""Faults of one request, kept away from the others; and those of a model's files, in words that
name no place on this machine. Worker threads only.

Not only exceptions: a panic in tokenizers or llguidance is a BaseException (PyO3's
PanicException), and on this thread nothing else is. One that passed would end the thread unheard.
"""

import logging
import os
import re
from collections.abc import Callable
from typing import TypeVar

from application.trace import kind, wordless
from domain.errors import DomainError, EngineFailed, ModelUnusable
from domain.models import ModelCard

logger = logging.getLogger("portico.engine")

T = TypeVar("T")

_PATH = re.compile(r"""(?<![\w./])~?(?:/[^/\s'"`:,;()\[\]<>]+){2,}/?""")


def attempt(work: Callable[[], T]) -> T | DomainError:
    """What `work` for one request gives, or how that request failed."""
    try:
        return work()
    except DomainError as error:
        return error
    except BaseException as error:
        logger.error("a request failed", exc_info=wordless(error))
        return EngineFailed(f"The engine failed on this request ({kind(error)}).")


def unusable(card: ModelCard, undone: str, error: BaseException) -> ModelUnusable:
    """What is told of a model whose files something stumbled over. The log has all of its words;
    clients need not know where models are. undone: `loaded` or the like.
    """
    logger.error("%s could not be %s: %s: %s", card.id, undone, kind(error), error)
    words = str(error)
    for folder in (str(card.location), os.path.realpath(card.location)):
        words = words.replace(folder, str(card.id))  # whatever characters it has
    return ModelUnusable(f"The model `{card.id}` could not be {undone}: {without_paths(words)}")


def without_paths(words: str) -> str:
    """Only the last name of each path from the root, or from somebody's home."""
    return _PATH.sub(lambda path: path[0].rstrip("/").rpartition("/")[2], words)
