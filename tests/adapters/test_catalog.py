"""The catalog over a Hugging Face cache and folders that the tests lay out."""

import json
from pathlib import Path

import pytest

from adapters.huggingface import catalog as module
from adapters.huggingface.catalog import HuggingFaceCatalog
from domain.errors import ModelNotFound
from domain.models import ModelId
from tests.servers import model_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(module, "_FRESH_FOR", 0.0)
    return folder


def cached_model(cache: Path, name: str, commit: str = "a" * 40, *, main: bool = True) -> Path:
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "blobs").mkdir(parents=True, exist_ok=True)
    (repo / "refs").mkdir(exist_ok=True)
    if main:
        (repo / "refs" / "main").write_text(commit)
    return model_folder(repo / "snapshots", commit)


async def ids(cache: Path, *offered: str, **built_in: Path) -> list[str]:
    found = await HuggingFaceCatalog(offered, built_in, cache).all()
    return sorted(str(card.id) for card in found)


async def test_the_cache_is_offered_when_nothing_is_configured(cache: Path) -> None:
    cached_model(cache, "org/one")
    cached_model(cache, "bare")
    assert await ids(cache) == ["bare", "org/one"]


async def test_an_empty_machine_offers_what_is_built_in(cache: Path, tmp_path: Path) -> None:
    assert await ids(tmp_path / "none", demo=model_folder(tmp_path, "demo")) == ["demo"]


async def test_only_what_is_configured_is_offered(cache: Path, tmp_path: Path) -> None:
    cached_model(cache, "org/one")
    cached_model(cache, "org/two")
    local = model_folder(tmp_path / "models", "local")
    demo = model_folder(tmp_path, "demo")
    assert await ids(cache, "org/two", str(local), demo=demo) == ["local", "org/two"]
    assert await ids(cache, "demo", demo=demo) == ["demo"]


async def test_a_folder_of_models_is_offered_two_levels_deep(cache: Path, tmp_path: Path) -> None:
    model_folder(tmp_path / "models", "one")
    model_folder(tmp_path / "models", "org/two")
    model_folder(tmp_path / "models", "too/deep/three")
    assert await ids(cache, str(tmp_path / "models")) == ["one", "org/two"]


async def test_the_revision_of_main_is_the_one(cache: Path) -> None:
    cached_model(cache, "org/one", "b" * 40, main=False)
    cached_model(cache, "org/one", "a" * 40)
    card = await HuggingFaceCatalog((), {}, cache).find(ModelId.parse("org/one"))
    assert card.revision == "a" * 40
    assert card.location.name == "a" * 40


async def test_a_card_tells_size_and_context(cache: Path, tmp_path: Path) -> None:
    model_folder(tmp_path / "m", "one", context=4096, size=2000)
    nested = model_folder(tmp_path / "m", "two")
    config = {"model_type": "x", "text_config": {"max_position_embeddings": 77}}
    (nested / "config.json").write_text(json.dumps(config))
    catalog = HuggingFaceCatalog((str(tmp_path / "m"),), {}, cache)
    one, two = [await catalog.find(ModelId.parse(name)) for name in ("one", "two")]
    assert (one.weight_bytes, one.context_length) == (2000, 4096)
    assert two.context_length == 77


async def test_what_is_no_whole_model_is_not_offered(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "m"
    half = model_folder(root, "half")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (half / "model.safetensors.index.json").write_text(json.dumps(index))
    (model_folder(root, "pickle") / "model.safetensors").rename(root / "pickle" / "model.bin")
    (model_folder(root, "broken") / "config.json").write_text("{")
    (model_folder(root, "listed") / "config.json").write_text("[1]")
    (model_folder(root, "typeless") / "config.json").write_text("{}")
    model_folder(root, "whole")
    assert await ids(cache, str(root)) == ["whole"]


@pytest.mark.parametrize(
    "index", ['{"weight_map": [1]}', '{"weight_map": {"a": 5}}', "{}", "[]", "[" * 100_000]
)
async def test_a_malformed_model_takes_nobody_with_it(
    cache: Path, tmp_path: Path, index: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = model_folder(tmp_path / "m", "bad")
    (bad / "model.safetensors.index.json").write_text(index)
    deep = model_folder(tmp_path / "m", "deep")
    (deep / "config.json").write_text("[" * 100_000)
    model_folder(tmp_path / "m", "good")
    assert await ids(cache, str(tmp_path / "m")) == ["good"]
    assert "bad is left out" in caplog.text


async def test_a_cache_that_is_none_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert await ids(tmp_path / "file") == []


async def test_a_model_that_comes_later_is_found(cache: Path, tmp_path: Path) -> None:
    catalog = HuggingFaceCatalog((str(tmp_path / "m"),), {}, cache)
    (tmp_path / "m").mkdir()
    with pytest.raises(ModelNotFound):
        await catalog.find(ModelId.parse("late"))
    model_folder(tmp_path / "m", "late")
    assert str((await catalog.find(ModelId.parse("late"))).id) == "late"


async def test_no_network_is_touched(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the catalog opened a connection")

    cached_model(cache, "org/one")
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert await ids(cache) == ["org/one"]
