"""`portico key new`, and what the settings take of keys, hosts and files."""

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapters.cli.security import key_ring
from adapters.settings import Settings
from tests.command_line import portico

DIGEST = hashlib.sha256(b"sesame").hexdigest()
EMPTY = hashlib.sha256(b"").hexdigest()


def test_a_new_key_opens_once_its_lines_are_in_the_file(tmp_path: Path) -> None:
    limits = (
        "--requests-per-minute",
        "60",
        "--tokens-per-minute",
        "9000",
        "-m",
        "org/ä",
        "-m",
        "b",
    )
    said = portico("key", "new", "laptop", *limits).stdout
    key = next(line for line in said.splitlines() if line.startswith("portico-"))
    table = said[said.index("[api_keys.laptop]") :]
    assert key not in table
    assert said.count(key) == 1
    (tmp_path / "portico.toml").write_text(table)
    owner = key_ring(Settings.load()).owner(key.encode())
    assert owner
    access = owner.access
    assert (access.name, access.requests_per_minute, access.tokens_per_minute) == (
        "laptop",
        60,
        9000,
    )
    assert sorted(map(str, access.models or ())) == ["b", "org/ä"]
    assert key_ring(Settings.load()).owner(key[:-1].encode()) is None


def test_a_new_key_for_scripts() -> None:
    first, second = (json.loads(portico("key", "new", "a", "--json").stdout) for _ in range(2))
    assert set(first) == {"name", "key", "sha256"}
    assert hashlib.sha256(first["key"].encode()).hexdigest() == first["sha256"]
    assert len(first["key"]) >= 43  # 256 bits of chance
    assert first["key"] != second["key"]


@pytest.mark.parametrize(
    "words", [("a b",), ("a.b",), ("",), ("x" * 65,), ("ok", "-m", "../x"), ("ok", "-m", "/etc")]
)
def test_what_the_settings_would_not_take_is_no_new_key(words: tuple[str, ...]) -> None:
    result = portico("key", "new", *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("portico: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "my-mac.local"])
def test_a_server_that_all_can_reach_needs_a_key(host: str) -> None:
    result = portico("serve", "--backend", "scripted", "--host", host)
    assert result.exit_code == 2
    assert "no API key is set" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "broken",
    [
        {"api_key": ""},
        {"api_key": " canary"},
        {"api_key": "canary\n"},
        {"api_key": ["canary"]},
        {"api_keys": "canary"},
        {"api_keys": {"a": "canary"}},
        {"api_keys": {"a": {"sha256": "canary"}}},
        {"api_keys": {"a": {"sha256": DIGEST + "canary"}}},
        {"api_keys": {"a": {"sha256": EMPTY}}},
        {"api_keys": {"a": {"key": "canary"}}},
        {"api_keys": {"a": {"sha256": DIGEST, "requests_per_minute": 0}}},
        {"api_keys": {"a": {"sha256": DIGEST, "models": ["../x"]}}},
        {"api_keys": {"a": {"sha256": DIGEST}, "b": {"sha256": DIGEST}}},
        {"api_key": "canary", "api_keys": {"default": {"sha256": DIGEST}}},
        {"allowed_hosts": ["a:80"]},
        {"allowed_hosts": "http://a"},
        {"cors_origins": ["null"]},
        {"cors_origins": "https://a.b/"},
        {"ssl_keyfile": "k.pem"},
        {"ssl_keyfile_password": "canary"},
    ],
)
def test_settings_that_would_open_a_door_are_refused_and_not_repeated(
    broken: dict[str, object],
) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.load(**broken)
    assert "canary" not in str(refusal.value)
    assert "canary" not in repr(refusal.value)


def test_a_broken_file_does_not_show_its_secrets(tmp_path: Path) -> None:
    for text in ('api_key = "canary\n', "api_key = canary", 'api_keys = "canary"', "x = 'canary'"):
        (tmp_path / "portico.toml").write_text(text)
        result = portico("serve", "--backend", "scripted")
        assert result.exit_code == 2
        assert "canary" not in result.output + result.stderr


def test_hosts_and_origins_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_ALLOWED_HOSTS", "portico.lan, *.example.com")
    monkeypatch.setenv("PORTICO_CORS_ORIGINS", '["https://a.b"]')
    monkeypatch.setenv("PORTICO_API_KEYS", json.dumps({"a": {"sha256": DIGEST}}))
    settings = Settings.load()
    assert settings.allowed_hosts == ("portico.lan", "*.example.com")
    assert settings.cors_origins == ("https://a.b",)
    assert key_ring(settings).owner(b"sesame")


def test_downloads_are_off_where_others_can_reach_the_server() -> None:
    assert Settings.load().offers_pulls
    assert not Settings.load(host="0.0.0.0").offers_pulls
    assert Settings.load(host="0.0.0.0", allow_pulls=True).offers_pulls
    assert not Settings.load(allow_pulls=False).offers_pulls


def test_the_prefix_cache_is_shared_only_by_keys_of_one_scope() -> None:
    keys = {
        name: {"sha256": hashlib.sha256(name.encode()).hexdigest()} | more
        for name, more in {
            "a": {},
            "b": {},
            "c": {"cache_scope": "team"},
            "d": {"cache_scope": "team"},
            "e": {"cache_scope": "a"},
            "f": {"cache_scope": "key a"},
        }.items()
    }
    ring = key_ring(Settings.load(api_keys=keys, api_key="g"))
    scopes = {}
    for name in "abcdefg":
        owner = ring.owner(name.encode())
        assert owner
        scopes[name] = owner.access.cache_scope
    assert scopes["c"] == scopes["d"]
    assert len(set(scopes.values())) == 6
    assert "" not in scopes.values()


def test_the_example_of_the_docs_is_one(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    example = docs.split("```toml\n")[1].split("```")[0]
    assert Settings.load(**tomllib.loads(example)).api_keys
