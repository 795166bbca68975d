"""Served over TLS, with a certificate of the test's own."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.command_line import portico
from tests.e2e.conftest import Program, portico_serve

PASSWORD = "tls-canary"  # noqa: S105 - of a key that lives as long as the test


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """cert.pem, key.pem, encrypted.pem, and ca.pem of who has signed."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    lock = BestAvailableEncryption(PASSWORD.encode())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    (tmp_path / "encrypted.pem").write_bytes(locked)
    return tmp_path


def settings(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"PORTICO_{name.upper()}", str(value))


@pytest.fixture
def program(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    settings(
        monkeypatch,
        backend="scripted",
        ssl_certfile=files / "cert.pem",
        ssl_keyfile=files / "encrypted.pem",
        ssl_keyfile_password=PASSWORD,
    )
    with portico_serve(files) as program:
        yield program


def test_it_is_served_over_tls_and_only_so(
    program: Program, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(files / "ca.pem"))
    assert httpx.get(f"{program.url}/livez", verify=trusting).status_code == 200
    with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
        httpx.get(f"{program.url}/livez")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{program.url.replace('https', 'http')}/livez")
    assert not [line for line in program.output if PASSWORD in line]
    # The commands for a running server trust what this server is set up with.
    monkeypatch.setenv("PORTICO_PORT", program.url.rpartition(":")[2])
    monkeypatch.setenv("PORTICO_SSL_CERTFILE", str(files / "ca.pem"))
    assert "in use" in portico("ps").stdout


@pytest.mark.parametrize(
    ("certificate", "key", "password"),
    [
        ("nonesuch.pem", "key.pem", None),
        ("cert.pem", "nonesuch.pem", None),
        ("cert.pem", None, None),  # there is no key in it
        ("cert.pem", "ca.pem", None),
        ("key.pem", "cert.pem", None),
        ("cert.pem", "encrypted.pem", None),
        ("cert.pem", "encrypted.pem", "wrong-canary"),
    ],
)
def test_files_that_can_not_be_served_with_are_told_at_once(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: str,
    key: str | None,
    password: str | None,
) -> None:
    settings(monkeypatch, backend="scripted", ssl_certfile=files / certificate)
    if key:
        settings(monkeypatch, ssl_keyfile=files / key)
    if password:
        settings(monkeypatch, ssl_keyfile_password=password)
    result = portico("serve", "--port", "0")
    assert result.exit_code == 2
    assert "`ssl_certfile` and `ssl_keyfile` can't be used" in result.stderr
    assert "canary" not in result.stderr
