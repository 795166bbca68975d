"""Faults of one request, kept away from the others. Worker thread only."""

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

from domain.errors import DomainError, EngineFailed

logger = logging.getLogger("portico.engine")

T = TypeVar("T")


def attempt(work: Callable[[], T]) -> T | DomainError:
    """What `work` for one request gives, or how that request failed."""
    try:
        return work()
    except DomainError as error:
        return error
    except Exception as error:  # noqa: BLE001 - part of the worker's step boundary
        # No message: it may quote the prompt.
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        logger.error("a request failed: %s at %s:%s", kind, place.filename, place.lineno)
        return EngineFailed(f"The engine failed on this request: {error!r}")
