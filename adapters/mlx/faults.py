"""Faults of one request, kept away from the others. Worker thread only.

Not only exceptions: a panic in tokenizers or llguidance is a BaseException (PyO3's
PanicException), and on this thread nothing else is. One that passed would end the thread unheard.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from application.trace import kind, wordless
from domain.errors import DomainError, EngineFailed

logger = logging.getLogger("portico.engine")

T = TypeVar("T")


def attempt(work: Callable[[], T]) -> T | DomainError:
    """What `work` for one request gives, or how that request failed."""
    try:
        return work()
    except DomainError as error:
        return error
    except BaseException as error:
        logger.error("a request failed", exc_info=wordless(error))
        return EngineFailed(f"The engine failed on this request ({kind(error)}).")
