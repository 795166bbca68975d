"""What more than one place refuses, in the same words. Those for want of memory have the estimate
that they rest on: its numbers go to clients.
"""

from domain.errors import EngineFailed, MemoryBusy, ModelTooLarge
from domain.models import ModelId
from domain.residency import Estimate


class NeverFits(ModelTooLarge):
    """Not even an otherwise empty server has room for the model, pinned ones aside."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__(estimate.text, estimate.need.total, estimate.budget)
        self.estimate = estimate


class NoRoomNow(MemoryBusy):
    """The model would have to wait, and may not: for `reason`, or for requests to others."""

    def __init__(self, estimate: Estimate, retry_after: float, reason: str = "") -> None:
        text = f"{reason} {estimate.numbers}" if reason else estimate.text
        super().__init__(text, retry_after)
        self.estimate = estimate


class FilesUnread(EngineFailed):
    """The files of a model were not looked at in time, as on a disk that hangs."""

    def __init__(self, model: ModelId, seconds: float) -> None:
        super().__init__(
            f"The model `{model}` failed: its files were not read within {seconds:g} s."
        )
