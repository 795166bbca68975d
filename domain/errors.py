"""Everything that can go wrong, as one tree.

DomainError
├── InvalidRequest          the request can never work as it is (param names the culprit)
│   └── ContextOverflow     the prompt is longer than the model's context
├── ModelNotFound           no such model in the catalog
├── ModelTooLarge           the model can never fit the memory budget
├── ModelInUse              requests are running on a model that was to go
├── ModelBeingPulled        a model that was to be deleted is being downloaded
├── JobNotFound             no such download job
├── ServerBusy              too many are waiting; come back in retry_after seconds
│   ├── MemoryBusy          the memory is taken by models that are in use
│   └── RateLimited         an API key has used up what it may do in a minute
├── HubFailed               the model hub could not do what was asked; `fault` says why
├── EngineFailed            the engine broke, or could not be loaded
│   ├── ModelUnusable       the model on disk is one that can't be loaded
│   └── EngineResting       it died again and again; come back in retry_after seconds
├── RequestTimedOut         it took longer than a request may
└── ShuttingDown            the server is on its way out
"""

import math
from enum import StrEnum


class DomainError(Exception):
    """The root of the tree. The message is written for the client's eyes."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle would call the class with the message alone, which few of these take."""
        return _revived, (type(self), self.args), self.__dict__


def _revived(kind: type[DomainError], args: tuple[object, ...]) -> DomainError:
    return kind.__new__(kind, *args)


class InvalidRequest(DomainError):
    """The request can never work as it is; `param` names the field to change."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextOverflow(InvalidRequest):
    """The prompt is longer than the model's context. Counts are in tokens."""

    def __init__(self, prompt_tokens: int, context_length: int, param: str = "messages") -> None:
        super().__init__(
            # litellm recognises overflows by this sentence (BerriAI/litellm#10793).
            f"This model's maximum context length is {context_length} tokens. "
            f"However, your prompt has {prompt_tokens} tokens and leaves no room for an answer. "
            "Please shorten it.",
            param,
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class ModelNotFound(DomainError):
    """No such model in the catalog."""

    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model}` does not exist or is not available on this server.")
        self.model = model


class ModelTooLarge(DomainError):
    """The model can never fit the memory budget. The message has the numbers."""

    def __init__(self, message: str, need: int, budget: int) -> None:
        super().__init__(message)
        self.need = need  # bytes
        self.budget = budget  # bytes


class ModelInUse(DomainError):
    """Requests are running on a model that was to be unloaded or deleted, or wait for its load."""

    def __init__(self, model: str, leases: int, *, loading: bool = False) -> None:
        super().__init__(
            f"The model `{model}` is being loaded, which nothing interrupts. Try again once it is "
            "loaded."
            if loading
            else f"The model `{model}` has requests ({leases}). Wait until it is idle, or unload "
            "it with `force`, which ends the requests that it is answering."
        )
        self.leases = leases


class ModelBeingPulled(DomainError):
    """A model that was to be deleted is being downloaded."""

    def __init__(self, model: str, job: str) -> None:
        super().__init__(
            f"The model `{model}` is being downloaded (job {job}). Cancel the download, or wait "
            "until it has ended."
        )


class JobNotFound(DomainError):
    """No such download job."""

    def __init__(self, job: str) -> None:
        super().__init__(f"There is no download job `{job}`.")


class ServerBusy(DomainError):
    """Too many are waiting; come back in `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MemoryBusy(ServerBusy):
    """The memory is taken by models that are in use. The message has the numbers."""


class RateLimited(ServerBusy):
    """An API key has used up what it may do in a minute. unit: `requests` or `tokens`; needed: how
    many of them this request may take.
    """

    def __init__(
        self, name: str, limit: int, unit: str, retry_after: float, needed: int = 1
    ) -> None:
        these = f", and this one may take {needed}" if needed > 1 else ""
        super().__init__(
            f"Rate limit reached for the API key `{name}`: {limit} {unit} per minute{these}. "
            f"Please try again in {retry_after:.1f}s.",
            retry_after,
        )


class HubFault(StrEnum):
    """Why the hub could not do what was asked."""

    OFFLINE = "offline"  # by a setting of ours: nothing was looked up
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"  # the token is wrong
    GATED = "gated"  # its licence has to be accepted first, or a token is missing
    MISSING = "missing"  # no such repository, revision or file
    RENAMED = "renamed"
    UNSUITABLE = "unsuitable"  # there is nothing in it that MLX could load
    BUSY = "busy"  # it limits our rate, or is out of order
    STALLED = "stalled"
    CORRUPT = "corrupt"  # what came is not what was announced
    DISK_FULL = "disk_full"
    UNWRITABLE = "unwritable"  # the cache of downloads, by us

    @property
    def passes(self) -> bool:
        """By itself, often: the network of a machine that has just started comes up, too."""
        return self in {HubFault.UNREACHABLE, HubFault.BUSY, HubFault.STALLED}


class HubFailed(DomainError):
    """The model hub could not do what was asked; the message says what to do about it."""

    def __init__(self, fault: HubFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class EngineFailed(DomainError):
    """The engine broke, or could not be loaded."""


class ModelUnusable(EngineFailed):
    """The model on disk is damaged, or of a kind that can't be loaded. Trying again won't help."""


class EngineResting(EngineFailed):
    """The engine died again and again, and is not loaded in the next `retry_after` seconds."""

    def __init__(self, model: str, deaths: int, retry_after: float, reason: str) -> None:
        super().__init__(
            f"The engine of `{model}` died {deaths} times in a row, and is loaded again in "
            f"{math.ceil(retry_after)} s at the earliest. The last time: {reason}"
        )
        self.retry_after = retry_after


class RequestTimedOut(DomainError):
    """The answer was not ready within the `seconds` that a request may take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request took longer than {seconds:g} s (`request_timeout`).")
        self.seconds = seconds


class ShuttingDown(DomainError):
    """The server is on its way out. retry_after: seconds in which another one may be there."""

    retry_after = 5.0

    def __init__(self) -> None:
        super().__init__("The server is shutting down.")
