"""Which names a server answers to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.hosts import HostAllowlist, is_foreign, is_host_pattern, is_loopback, is_origin

EVIL = [
    "",
    " ",
    "evil.test",
    "evil.test:8000",
    "a/b?",
    "localhost/livez?",
    "localhost/../x",
    "localhost:8000/livez",
    "localhost?x",
    "localhost#",
    "user@localhost",
    "localhost@evil.test",
    "localhost, evil.test",
    "localhost,localhost",
    "localhost\\evil",
    "localhost evil",
    "localhost:80:80",
    "localhost:x",
    "localhost.evil.test",
    "notlocalhost",
    "127.0.0.1.evil.test",
    "0.0.0.0",
    "127.1",
    "[::2]",
    "[::1",
    "\xff",
    "x" * 10_000,
]


@pytest.mark.parametrize("host", EVIL)
def test_what_is_not_ours_is_refused(host: str) -> None:
    assert not HostAllowlist.of("127.0.0.1").allows(host)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:1", "[::1]:8000", "[0:0:0:0:0:0:0:1]"],
)
def test_loopback_goes_by_all_its_names(host: str) -> None:
    assert HostAllowlist.of("127.0.0.1").allows(host)
    assert HostAllowlist().allows(host)


def test_an_open_server_answers_to_addresses_but_not_to_names() -> None:
    hosts = HostAllowlist.of("0.0.0.0")
    assert all(hosts.allows(host) for host in ("10.0.3.4:8000", "[fe80::1]:80", "0.0.0.0:8000"))
    assert not any(hosts.allows(host) for host in ("evil.test", "10.0.3.4.evil.test"))
    assert HostAllowlist.of("my-mac.local").allows("My-Mac.local:8000")


def test_more_names_can_be_allowed() -> None:
    hosts = HostAllowlist.of("127.0.0.1", ["portico.example.com", "*.lan", "10.0.0.5"])
    allowed = ["portico.example.com:443", "a.lan", "a.b.lan:80", "10.0.0.5"]
    assert all(hosts.allows(host) for host in allowed)
    refused = ["example.com", "x.portico.example.com", "lan", "evil-lan", "a.lan.evil.test"]
    assert not any(hosts.allows(host) for host in [*refused, "10.0.0.6"])
    everything = HostAllowlist.of("127.0.0.1", ["*"])
    assert everything.allows("evil.test")
    assert not everything.allows("a/b?")


@given(st.text())
def test_only_a_plain_authority_is_ever_allowed(text: str) -> None:
    if HostAllowlist.of("0.0.0.0", ["*"]).allows(text):
        assert not set(text) & set("/?#@\\, \r\n\t%")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "::ffff:127.0.0.1"])
def test_what_only_this_machine_can_reach(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "0", "192.168.1.5", "my-mac.local", "::ffff:10.0.0.1", "fe80::1"]
)
def test_what_others_can_reach(host: str) -> None:
    assert not is_loopback(host)


def test_pages_of_our_own_and_those_allowed_are_not_foreign() -> None:
    allowed = ["https://chat.example.com", "app://obsidian.md"]
    for origin in ("http://localhost:8000", "https://localhost:8000", *allowed):
        assert not is_foreign(origin, "Localhost:8000", allowed)
    for origin in ("http://localhost:3000", "http://evil.test", "null", "", "localhost:8000"):
        assert is_foreign(origin, "localhost:8000", allowed)
        assert not is_foreign(origin, "localhost:8000", ["*"])


def test_what_settings_may_hold() -> None:
    assert all(map(is_host_pattern, ["a", "a.b", "*.a.b", "*", "10.0.0.1", "::1"]))
    assert not any(map(is_host_pattern, ["", "a:80", "http://a", "a/b", "a.*", "*a", "a b"]))
    assert all(map(is_origin, ["https://a.b", "http://localhost:3000", "app://-"]))
    assert not any(
        map(is_origin, ["null", "a.b", "https://a.b/", "https://A.b", "https://u@a", ""])
    )
