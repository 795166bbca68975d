"""Refusals for want of memory, with the estimate that they rest on: its numbers go to clients."""

from domain.errors import MemoryBusy, ModelTooLarge
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
