"""Which names and pages may talk to the server: against DNS rebinding and foreign web pages."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.http.errors import WireError
from domain.hosts import HostAllowlist, is_foreign

_SHOWN = 100  # characters of what was refused


class HostGuard:
    """Refuses requests by an unknown Host, and those of web pages that are not allowed.

    origins: of pages that may; `*` is all. Whatever is not a browser sends no Origin.
    """

    def __init__(self, app: ASGIApp, hosts: HostAllowlist, origins: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        answer = refusal.response() if refusal else self._app
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> WireError | None:
        authority = ",".join(_header(scope, b"host"))
        if not self._hosts.allows(authority):
            return _forbidden("Host", authority, "allowed_hosts")
        origins = _header(scope, b"origin")
        for origin in origins:
            if is_foreign(origin, authority, self._origins):
                return _forbidden("Origin", origin, "cors_origins")
        if not origins and "*" not in self._origins and _is_embedded(scope):
            return _forbidden("Origin", "", "cors_origins")
        return None


def _is_embedded(scope: Scope) -> bool:
    """Whether a page elsewhere asks for it as for a picture or a script: browsers send no Origin
    with these. A link that somebody follows is no such thing.
    """
    foreign = {"cross-site", "same-site"}.intersection(_header(scope, b"sec-fetch-site"))
    return bool(foreign) and "navigate" not in _header(scope, b"sec-fetch-mode")


def _header(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _forbidden(header: str, value: str, setting: str) -> WireError:
    shown = ascii(value[:_SHOWN])[1:-1]
    return WireError(
        403,
        f"{header} `{shown}` is not allowed. The setting `{setting}` says which are.",
        code=f"{header.lower()}_not_allowed",
    )
