"""Settings from every source, in rising order."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.container import Container
from adapters.isolated.loader import IsolatingLoader
from adapters.mlx.drafting import DraftingLoader
from adapters.settings import Settings
from domain.memory import ModelPolicy
from domain.models import ModelId


def test_defaults_are_safe() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.available_models == ()
    assert settings.offered_default == "portico/demo"
    assert settings.memory_budget_gb is None  # what the device allows


@pytest.mark.parametrize(
    "own",
    [
        {"max_body_mb": 1e308},
        {"memory_budget_gb": 1e308},
        {"prefix_cache_disk_gb": 1e308},
        {"scripted": {"load_delay": math.inf}},
    ],
)
def test_what_is_no_size_and_no_time_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**own)


def test_the_environment_then_the_file_then_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PORTICO_PORT", "1")
    monkeypatch.setenv("PORTICO_HOST", "from-env")
    monkeypatch.setenv("PORTICO_DEFAULT_MODEL", "from-env")
    assert Settings.load().port == 1
    file = tmp_path / "settings.toml"
    file.write_text('port = 2\nhost = "from-file"\n[scripted]\nreply = "hi"\n')
    settings = Settings.load(file, port=3, host=None)
    assert (settings.port, settings.host) == (3, "from-file")
    assert settings.default_model == settings.offered_default == "from-env"
    assert settings.scripted.reply == "hi"


def test_a_file_is_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "portico.toml").write_text("port = 4")
    assert Settings.load().port == 4
    (tmp_path / "other.toml").write_text("port = 5")
    monkeypatch.setenv("PORTICO_CONFIG", str(tmp_path / "other.toml"))
    assert Settings.load().port == 5
    with pytest.raises(FileNotFoundError):
        Settings.load(tmp_path / "missing.toml")


def test_variables_that_set_nothing_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORTICO_PORT", "portico_host", "PORTICO_SCRIPTED__REPLY", "PORTICO_CONFIG"):
        monkeypatch.setenv(name, "1")
    assert Settings.unknown_variables() == []
    monkeypatch.setenv("PORTICO_MAX_WAITNG", "1")
    monkeypatch.setenv("PORTICO_API_KEYZ__ME__SHA256", "1")
    assert Settings.unknown_variables() == ["PORTICO_API_KEYZ__ME__SHA256", "PORTICO_MAX_WAITNG"]


@pytest.mark.parametrize("written", ["a/b, /models/c", '["a/b", "/models/c"]'])
def test_a_list_in_the_environment(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("PORTICO_AVAILABLE_MODELS", written)
    settings = Settings.load()
    assert settings.available_models == ("a/b", "/models/c")
    assert settings.offered_default is None


def test_settings_do_not_change_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings.load().port = 1  # type: ignore[misc]
    for wrong in ("prot = 1", "port = 70000", 'memory_budget_gb = "much"'):
        (tmp_path / "portico.toml").write_text(wrong)
        with pytest.raises(ValidationError):
            Settings.load()


def test_a_model_s_own_settings_come_first_and_0_is_none(tmp_path: Path) -> None:
    (tmp_path / "portico.toml").write_text("""
        memory_budget_gb = 1
        backend = "scripted"
        idle_ttl = 900
        context_length = 100
        kv_concurrency = 2
        kv_bits = 8
        [models.own]
        idle_ttl = 5
        context_length = 50
        kv_concurrency = 1
        kv_bits = 4
        [models.none]
        idle_ttl = 0
        context_length = 0
        kv_concurrency = 0
        kv_bits = 0
        [models.silent]
    """)
    limits = Container(settings=Settings.load()).limits()
    general = ModelPolicy(idle_ttl=900, context_length=100, concurrency=2, kv_bits=8)
    own = ModelPolicy(idle_ttl=5, context_length=50, concurrency=1, kv_bits=4)
    assert limits.policy_of(ModelId("own")) == own
    assert limits.policy_of(ModelId("none")) == ModelPolicy()
    assert limits.policy_of(ModelId("silent")) == limits.policy_of(ModelId("other")) == general


@pytest.mark.parametrize(
    "own",
    [
        {"draft_model": ""},
        {"draft_model": "../elsewhere"},
        {"draft_model": "small", "num_draft_tokens": 0},
        {"draft_model": "small", "num_draft_tokens": 17},
        {"num_draft_tokens": 4},
    ],
)
def test_a_draft_is_a_model_and_its_guesses_are_few(own: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(models={"large": own})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["", "../elsewhere", "a/b/c"])
def test_what_names_a_model_is_a_model_id(name: str) -> None:
    for settings in ({"default_model": name}, {"models": {name: {}}}):
        with pytest.raises(ValidationError, match="is not a model id"):
            Settings(**settings)  # type: ignore[arg-type]


def test_a_draft_is_set_for_its_model_alone(tmp_path: Path) -> None:
    (tmp_path / "portico.toml").write_text('[models.large]\ndraft_model = "owner/small"\n')
    settings = Settings.load()
    assert settings.models["large"].draft_model == "owner/small"
    assert isinstance(Container(settings=settings).loader(), DraftingLoader)
    assert not isinstance(Container(settings=Settings(port=1)).loader(), DraftingLoader)


def test_a_draft_is_looked_at_where_its_model_is() -> None:
    large = {"draft_model": "owner/small", "isolation": "process"}
    own = ({}, {"owner/small": {"isolation": "thread"}})
    for more, chosen in zip(own, (True, False), strict=True):
        settings = Settings(models={"large": large, **more})  # type: ignore[arg-type]
        inner = Container(settings=settings).loader()._inner  # type: ignore[attr-defined]
        assert isinstance(inner, IsolatingLoader)
        assert inner._chosen(ModelId.parse("owner/small")) is chosen
        assert inner._chosen(ModelId.parse("large"))
        assert not inner._chosen(ModelId.parse("other"))
