"""What of the settings decides who may reach a server: keys, the address, TLS."""

import hashlib
import ssl
import time

from adapters.cli.failing import MISUSED, fail
from adapters.http.keys import KeyRing
from adapters.http.server import TlsOptions
from adapters.settings import DEFAULT_KEY, KeySettings, Settings
from application.callers import Caller
from domain.access import Access
from domain.models import ModelId


def key_ring(settings: Settings) -> KeyRing:
    """Every key of the settings."""
    callers = [
        (bytes.fromhex(key.sha256), Caller(_access(name, key), time.monotonic))
        for name, key in settings.api_keys.items()
    ]
    if settings.api_key:
        digest = hashlib.sha256(settings.api_key.get_secret_value().encode()).digest()
        default = Access(DEFAULT_KEY, cache_scope=f"key {DEFAULT_KEY}")
        callers.append((digest, Caller(default, time.monotonic)))
    return KeyRing(callers)


def _access(name: str, key: KeySettings) -> Access:
    # Two words, so that no scope that is set can be that of a key.
    scope = f"key {name}" if key.cache_scope is None else f"shared {key.cache_scope}"
    models = None if key.models is None else frozenset(map(ModelId.parse, key.models))
    return Access(name, models, key.requests_per_minute, key.tokens_per_minute, scope)


def refuse_open_bind(settings: Settings) -> None:
    """Ends the program when anyone on the network could use the server."""
    if settings.is_public and not (settings.api_key or settings.api_keys):
        fail(
            f"`host` is `{settings.host}`, which other machines can reach, and no API key is set. "
            "Make one with `portico key new NAME`, or set PORTICO_API_KEY; or listen on 127.0.0.1.",
            MISUSED,
        )


def tls_options(settings: Settings) -> TlsOptions:
    if settings.ssl_certfile is None:
        return {}
    password, keyfile = settings.ssl_keyfile_password, settings.ssl_keyfile
    return {
        "ssl_certfile": settings.ssl_certfile.expanduser(),
        "ssl_keyfile": keyfile.expanduser() if keyfile else None,
        "ssl_keyfile_password": password.get_secret_value() if password else None,
    }


def check_tls(settings: Settings) -> None:
    """Ends the program when the files can't be served with."""
    tls = tls_options(settings)
    if not tls:
        return
    # Without a password OpenSSL would ask the terminal for one.
    password = tls["ssl_keyfile_password"] or ""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls["ssl_certfile"], tls["ssl_keyfile"], lambda: password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(str(file) for file in (tls["ssl_certfile"], tls["ssl_keyfile"]) if file)
        fail(f"`ssl_certfile` and `ssl_keyfile` can't be used: {error} ({files})", MISUSED)
