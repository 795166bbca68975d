"""What goes wrong at the hub, in words that say what to do next. Never with the token in them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from domain.errors import HubFailed, HubFault
from domain.sizes import size

# What the library raises for a hub that can't be asked, or refuses.
HTTP_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled, UnicodeError)
# And what it raises when the answer makes no sense to it.
HUB_ERRORS = (*HTTP_ERRORS, AttributeError, LookupError, TypeError, ValueError)

BUSY_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Errand:
    """What the hub is asked for. model: "" for a search."""

    endpoint: str
    model: str = ""
    revision: str | None = None
    with_token: bool = False

    @property
    def host(self) -> str:
        """Without the credentials that a proxy's address may carry."""
        address = urlsplit(self.endpoint)
        return f"{address.hostname}:{address.port}" if address.port else str(address.hostname)

    @property
    def page(self) -> str:
        return f"{urlsplit(self.endpoint).scheme}://{self.host}/{self.model}"


def explain(error: Exception, errand: Errand) -> HubFailed:
    """The fault behind one of HUB_ERRORS."""
    match error:
        case HfHubHTTPError():
            return _refusal(error, errand)
        case OfflineModeIsEnabled():
            return offline()
        case httpx2.ReadTimeout() | httpx2.WriteTimeout():
            return stalled(errand)
        case _:
            return HubFailed(*_breakdown(error, errand))


def _breakdown(error: Exception, errand: Errand) -> tuple[HubFault, str]:
    """There was no answer, or none that makes sense."""
    match error:
        case HFValidationError():
            return HubFault.MISSING, (
                f"`{errand.model}` can't be a name on the hub. Names look like `owner/name`; "
                "search for the model to find its name."
            )
        case httpx2.LocalProtocolError() | UnicodeError():
            return HubFault.UNAUTHORIZED, (
                "HF_TOKEN holds characters that no token has. Copy it again from the hub."
            )
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return HubFault.UNREACHABLE, (
                f"The hub at {errand.host} can't be reached ({type(error).__name__}). Check the "
                "network, the proxy and HF_ENDPOINT, then try again."
            )
        case _:
            return HubFault.UNREACHABLE, (
                f"What {errand.host} answers is not what a model hub says. Check HF_ENDPOINT, and "
                "whether the network asks for a login first."
            )


def offline() -> HubFailed:
    return HubFailed(
        HubFault.OFFLINE,
        "Portico is offline by a setting, so the hub was not asked. Unset HF_HUB_OFFLINE (or "
        "leave the offline mode) to search and download; models on this machine can be used.",
    )


def stalled(errand: Errand) -> HubFailed:
    return HubFailed(
        HubFault.STALLED,
        f"The hub at {errand.host} stopped sending. Try again: what has come is kept.",
    )


def busy(errand: Errand, retry_after: float | None = None) -> HubFailed:
    when = "in some minutes" if retry_after is None else f"in {retry_after:.0f} seconds"
    return HubFailed(
        HubFault.BUSY,
        f"The hub at {errand.host} is overloaded or limits our rate. Try again {when}: what has "
        "come is kept." + ("" if errand.with_token else " With HF_TOKEN set it allows more."),
    )


def renamed(errand: Errand, name: str) -> HubFailed:
    return HubFailed(
        HubFault.RENAMED,
        f"The hub calls `{errand.model}` `{name}` now. Ask for it by that name.",
    )


def corrupt(errand: Errand, file: str) -> HubFailed:
    return HubFailed(
        HubFault.CORRUPT,
        f"`{file}` of `{errand.model}` came damaged, twice, and was deleted. Try again later, or "
        f"over another network; if it stays so, tell its owner at {errand.page}.",
    )


def disk_full(folder: Path, need: int, free: int) -> HubFailed:
    return HubFailed(
        HubFault.DISK_FULL,
        f"The download needs {size(need)} more in {folder}, and {size(free)} are free. Remove "
        "models that you don't use, or set HF_HOME to a folder on a larger disk.",
    )


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """OSErrors of the disk become HubFailed."""
    try:
        yield
    except (httpx2.HTTPError, OfflineModeIsEnabled):
        raise  # some of the hub's errors are OSErrors as well
    except OSError as error:
        if error.errno in _FULL:
            raise HubFailed(
                HubFault.DISK_FULL,
                f"The disk of {folder} is full. What could not be finished was deleted; remove "
                "models that you don't use, then pull again.",
            ) from error
        raise HubFailed(
            HubFault.UNWRITABLE,
            f"The folder {folder} can't be written ({error.strerror or error}). Check who owns "
            "it, or set HF_HOME to another folder.",
        ) from error


def is_full(error: OSError) -> bool:
    return error.errno in _FULL


def _refusal(error: HfHubHTTPError, errand: Errand) -> HubFailed:
    status = error.response.status_code
    if isinstance(error, DisabledRepoError):
        return HubFailed(
            HubFault.MISSING,
            f"The hub has disabled `{errand.model}` ({errand.page}). Choose another model.",
        )
    if isinstance(error, GatedRepoError) or status == HTTPStatus.FORBIDDEN:
        return _gated(errand)
    if status == HTTPStatus.UNAUTHORIZED and errand.with_token:
        return HubFailed(
            HubFault.UNAUTHORIZED,
            f"The hub at {errand.host} does not accept the token. Set HF_TOKEN to a valid one, "
            "log in again with `hf auth login`, or unset it.",
        )
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED}:
        return _missing(error, errand)
    if status in BUSY_STATUS:
        return busy(errand)
    return HubFailed(
        HubFault.UNREACHABLE,
        f"The hub at {errand.host} refused with status {status}. Check HF_ENDPOINT and the proxy.",
    )


def _gated(errand: Errand) -> HubFailed:
    then = (
        "with the account of your HF_TOKEN, and check that the token may read gated models"
        if errand.with_token
        else "with your account, then set HF_TOKEN to a token of it"
    )
    return HubFailed(
        HubFault.GATED,
        f"`{errand.model}` is gated. Accept its terms at {errand.page} {then}.",
    )


def _missing(error: HfHubHTTPError, errand: Errand) -> HubFailed:
    if isinstance(error, RevisionNotFoundError):
        return HubFailed(
            HubFault.MISSING,
            f"`{errand.model}` has no revision `{errand.revision or 'main'}`. Its branches, tags "
            f"and commits are at {errand.page}.",
        )
    private = "" if errand.with_token else " If it is private, set HF_TOKEN."
    return HubFailed(
        HubFault.MISSING,
        f"The hub at {errand.host} has no `{errand.model}`. Check the name, or search for "
        f"it.{private}",
    )
