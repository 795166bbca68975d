"""The names that a server answers to: the fence against DNS rebinding.

A page of evil.test whose name is pointed at 127.0.0.1 is, to a browser, still evil.test; only the
Host header tells.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

# What RFC 9110 lets a Host header be, and nothing that a parser of URLs could take for a path.
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{0,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@\\]+")  # app://… and tauri://… as well
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` can be reached from this machine alone."""
    address = _address(host)
    if address is None:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


@dataclass(frozen=True, slots=True)
class HostAllowlist:
    """names: in lower case; `*.example.com` is all below it, `*` is everything. any_address: IP
    addresses, too. A page can't be served from an address that isn't its server's, so nobody gets
    past the fence by one.
    """

    names: frozenset[str] = frozenset(_LOOPBACK_NAMES)
    any_address: bool = False

    @classmethod
    def of(cls, bind: str, more: Iterable[str] = ()) -> Self:
        """For a server that listens on `bind`. One that is open to the network answers to every
        address: it may have many, and those who probe its health know no name.
        """
        names = {_canonical(name) for name in (*_LOOPBACK_NAMES, bind, *more)}
        return cls(frozenset(names), not is_loopback(bind))

    def allows(self, authority: str) -> bool:
        """authority: a Host header as it came, with or without a port."""
        parsed = _AUTHORITY.fullmatch(authority)
        if parsed is None:
            return False
        host = _canonical(parsed["host"])
        if "*" in self.names or host in self.names:
            return True
        if _address(host) is not None:
            return self.any_address
        return any(host.endswith(name[1:]) for name in self.names if name.startswith("*."))


def is_host_pattern(text: str) -> bool:
    """Whether it can stand in an allowlist: a name, an address, `*.example.com` or `*`."""
    if text == "*" or _address(text) is not None:
        return True
    return re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text) is not None


def is_origin(text: str) -> bool:
    """Whether it is an origin as browsers write them: scheme, host and port, in lower case.

    `null` is none: every sandboxed page has it.
    """
    return text == text.lower() and _ORIGIN.fullmatch(text) is not None


def is_foreign(origin: str, authority: str, allowed: Iterable[str]) -> bool:
    """Whether a page of `origin` has no business with the server that it calls `authority`."""
    own = {f"{scheme}://{authority.lower()}" for scheme in ("http", "https")}
    return origin not in own and not {"*", origin} & set(allowed)


def _canonical(host: str) -> str:
    address = _address(host)
    return host.lower().removesuffix(".") if address is None else str(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
