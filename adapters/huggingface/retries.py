"""When a request to the hub is worth another try, and how soon."""

from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers

from adapters.huggingface.halt import Halt
from adapters.huggingface.hub_errors import BUSY_STATUS, Errand, busy, explain

_FIRST_TRIES = 2  # of a hub that was never there: who waits for it should soon hear so
_LONGEST_WAIT = 60.0  # seconds; who is told to come back later than that hears it from us


@dataclass(slots=True)
class Retries:
    """The library's own retries can't be stopped, and sleep for as long as Retry-After says.

    limit: failures in a row that lead to another try. backoff: the first pause, in seconds; it
    doubles. answered: something has come before.
    """

    errand: Errand
    halt: Halt
    limit: int
    backoff: float
    failures: int = 0
    answered: bool = False

    def progressed(self) -> None:
        self.failures = 0
        self.answered = True

    def pause(self, error: Exception) -> None:
        """Wait until the next try. Raises HubFailed where there should be none, or Halted."""
        self.halt.check()  # it may be the cut connection that failed
        self.failures += 1
        if self.failures > self._tries(error):
            raise explain(error, self.errand) from error
        announced = _retry_after(error)
        if announced is not None and announced > _LONGEST_WAIT:
            raise busy(self.errand, announced) from error
        self.halt.sleep(self.backoff * 2 ** (self.failures - 1) if announced is None else announced)

    def _tries(self, error: Exception) -> int:
        if isinstance(error, HfHubHTTPError):
            return self.limit if error.response.status_code in BUSY_STATUS else 0
        if isinstance(error, httpx2.ReadTimeout):
            return 1  # each has lasted long enough by itself
        passing = (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.TimeoutException)
        if not isinstance(error, passing):
            return 0
        return self.limit if self.answered else _FIRST_TRIES


def _retry_after(error: Exception) -> float | None:
    """What the hub asks for, in seconds."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    limits = parse_ratelimit_headers(headers)
    if limits and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    after = headers.get("Retry-After", "").strip()
    return float(after) if after.isascii() and after.isdigit() else None
