"""The catalog over a Hugging Face cache and folders that the tests lay out."""

import json
from pathlib import Path

import pytest

from adapters.huggingface import catalog as module
from adapters.huggingface.catalog import HuggingFaceCatalog
from domain.errors import InvalidRequest, ModelNotFound
from domain.models import Capabilities, ModelId
from tests.servers import cached_model, model_folder, safetensors


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(module, "_FRESH_FOR", 0.0)
    return folder


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


def configure(folder: Path, **config: object) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "x", **config}))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, "4-bit"),
        ({"quantization_config": {"bits": 8}}, "8-bit"),
        ({"quantization": {"bits": True}}, None),
        ({"quantization": 4}, None),
        ({}, None),
    ],
)
async def test_a_card_tells_architecture_and_quantization(
    tmp_path: Path, config: dict[str, object], expected: str | None
) -> None:
    configure(model_folder(tmp_path, "one"), **config)
    (card,) = await HuggingFaceCatalog((str(tmp_path),), {}, tmp_path / "none").all()
    assert (card.architecture, card.quantization) == ("x", expected)


TOOLED = "{% if tools %}{{ tools }}{% endif %}"
THINKER = "{% if enable_thinking %}x{% endif %}"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Capabilities()),
        ({"tokenizer_config.json": {"chat_template": "hi"}}, Capabilities(True)),
        ({"tokenizer_config.json": {"chat_template": TOOLED}}, Capabilities(True, True)),
        ({"chat_template.jinja": TOOLED + THINKER}, Capabilities(True, True, True)),
        ({"chat_template.json": {"chat_template": "<think>"}}, Capabilities(True, False, True)),
        (
            {
                "tokenizer_config.json": {
                    "chat_template": [
                        {"name": "default", "template": "a"},
                        {"name": "tool_use", "template": TOOLED},
                    ]
                }
            },
            Capabilities(True, True),
        ),
        (
            {
                "tokenizer_config.json": {"chat_template": "hi"},
                "tokenizer.json": {"added_tokens": [{"content": "<think>"}]},
            },
            Capabilities(True, False, True),
        ),
        (
            {"tokenizer_config.json": {"chat_template_type": "deepseek_v32"}},
            Capabilities(True, True, True),
        ),
        ({"tokenizer.json": {"added_tokens": [{"content": "<think>"}]}}, Capabilities()),
    ],
)
async def test_capabilities_are_read_from_the_templates(
    tmp_path: Path, files: dict[str, object], expected: Capabilities
) -> None:
    folder = model_folder(tmp_path, "one")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    (card,) = await HuggingFaceCatalog((str(tmp_path),), {}, tmp_path / "none").all()
    assert card.capabilities == expected


def lying(change: dict[str, object], cut: int = 0) -> bytes:
    tensor = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8], **change}
    header = json.dumps({"weight": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0" * 8
    return content[: len(content) - cut]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"\xff" * 1000,
        (2**63).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b"[" * 9,
        (2).to_bytes(8, "little") + b"[]",
        lying({}, cut=1),
        lying({"data_offsets": [0, 2**40]}),
        lying({"data_offsets": [8, 0]}),
        lying({"data_offsets": [4, 8]}),
        lying({"data_offsets": [-8, 8]}),
        lying({"data_offsets": ["0", "8"]}),
        lying({"data_offsets": 8}),
        safetensors(8) + b"more",
    ],
)
async def test_weights_whose_header_lies_are_left_out(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "m"
    (model_folder(root, "bad") / "model.safetensors").write_bytes(content)
    model_folder(root, "good")
    assert await ids(tmp_path / "none", str(root)) == ["good"]
    assert "bad is left out" in caplog.text


async def test_a_model_without_a_tokenizer_or_a_shard_is_not_whole(tmp_path: Path) -> None:
    root = tmp_path / "m"
    (model_folder(root, "mute") / "tokenizer.json").unlink()
    shard = model_folder(root, "shard")
    (shard / "model.safetensors").rename(shard / "model-00001-of-00002.safetensors")
    assert await ids(tmp_path / "none", str(root)) == []
    (shard / "model-00002-of-00002.safetensors").write_bytes(safetensors(5))
    assert await ids(tmp_path / "none", str(root)) == ["shard"]


async def test_the_index_can_not_lead_out_of_the_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "m"
    (tmp_path / "x.safetensors").write_bytes(safetensors(5))
    index = {"weight_map": {"a": "../../x.safetensors"}}
    (model_folder(root, "bad") / "model.safetensors.index.json").write_text(json.dumps(index))
    assert await ids(tmp_path / "none", str(root)) == []
    assert "bad is left out" in caplog.text


async def test_a_half_revision_gives_way_to_a_whole_one(cache: Path) -> None:
    cached_model(cache, "org/one", "a" * 40, main=False)
    half = cached_model(cache, "org/one", "b" * 40)
    (half / "model.safetensors").unlink()
    card = await HuggingFaceCatalog((), {}, cache).find(ModelId.parse("org/one"))
    assert card.revision == "a" * 40


async def test_a_repository_with_broken_links_hides_no_other(cache: Path) -> None:
    broken = cached_model(cache, "org/broken")
    (broken / "model.safetensors").unlink()
    (broken / "model.safetensors").symlink_to("../../blobs/none")
    (cache / "models--org--lost" / "refs").mkdir(parents=True)
    (cache / "models--org--lost" / "refs" / "main").write_text("c" * 40)
    cached_model(cache, "org/one")
    assert await ids(cache) == ["org/one"]


async def test_a_reference_that_matches_nothing_is_told_once(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = HuggingFaceCatalog(("org/none",), {}, cache)
    await catalog.all()
    await catalog.all()
    assert caplog.text.count("org/none") == 1


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-whom-we-know/models"])
async def test_a_folder_that_can_not_be_read_takes_nobody_with_it(
    cache: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that the system refuses is as bad as a parent that is closed to us."""
    bad = name if name.startswith("~") else str(tmp_path / name)
    good = model_folder(tmp_path, "good")
    catalog = HuggingFaceCatalog((bad, str(good)), {}, cache)
    for _ in range(2):
        assert [str(card.id) for card in await catalog.all()] == ["good"]
    (record,) = caplog.records
    assert bad in record.message


async def test_a_models_dir_that_can_not_be_read_takes_nobody_with_it(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached_model(cache, "org/one")
    catalog = HuggingFaceCatalog((), {}, cache, tmp_path / ("x" * 300))
    assert [str(card.id) for card in await catalog.all()] == ["org/one"]
    (record,) = caplog.records
    assert f"{tmp_path / ('x' * 300)} is left out" in record.message


async def test_folders_of_the_same_name_are_told(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = [model_folder(tmp_path / place, "same") for place in ("a", "b")]
    (card,) = await HuggingFaceCatalog((str(first), str(second)), {}, cache).all()
    assert card.location == first
    assert f"{second} is left out" in caplog.text


async def test_models_of_ones_own_are_always_offered(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    model_folder(own, "made")
    model_folder(own, "org/made")
    cached_model(cache, "org/one")
    cached_model(cache, "org/two")
    everything = await HuggingFaceCatalog((), {}, cache, own).all()
    assert {str(card.id) for card in everything} == {"made", "org/made", "org/one", "org/two"}
    named = await HuggingFaceCatalog(("org/one",), {}, cache, own).all()
    assert [str(card.id) for card in named] == ["org/one", "made", "org/made"]


async def test_a_model_of_ones_own_can_be_named(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model_folder(tmp_path / "own", "made")
    (card,) = await HuggingFaceCatalog(("made",), {}, cache, tmp_path / "own").all()
    assert str(card.id) == "made"
    assert caplog.text == ""


async def test_a_cached_model_is_removed_with_its_unfinished_files(cache: Path) -> None:
    cached_model(cache, "org/one", "a" * 40)  # the same commits as those of org/two
    cached_model(cache, "org/one", "b" * 40)
    cached_model(cache, "org/two", "a" * 40)
    repo = cache / "models--org--one"
    (repo / "blobs" / f"{'c' * 64}.incomplete").write_bytes(b"\0" * 5000)
    catalog = HuggingFaceCatalog((), {}, cache)
    files = [path for path in repo.rglob("*") if path.is_file()]
    expected = sum(path.stat().st_size for path in files)
    assert await catalog.remove(ModelId.parse("org/one")) == expected > 5000
    assert not repo.exists()
    assert [str(card.id) for card in await catalog.all()] == ["org/two"]
    with pytest.raises(ModelNotFound):
        await catalog.find(ModelId.parse("org/one"))
    with pytest.raises(ModelNotFound):
        await catalog.remove(ModelId.parse("org/one"))


async def test_removing_a_cached_model_leaves_what_its_links_lead_to(
    cache: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    snapshot = cached_model(cache, "org/one")
    (snapshot / "linked").symlink_to(outside / "precious")
    (snapshot / "folder").symlink_to(outside)
    await HuggingFaceCatalog((), {}, cache).remove(ModelId.parse("org/one"))
    assert not snapshot.exists()
    assert (outside / "precious").read_text() == "x"


async def test_a_repository_that_is_a_link_is_not_deleted(cache: Path, tmp_path: Path) -> None:
    cached_model(cache, "org/one")
    moved = (cache / "models--org--one").rename(tmp_path / "elsewhere")
    (cache / "models--org--one").symlink_to(moved)
    catalog = HuggingFaceCatalog((), {}, cache)
    with pytest.raises(InvalidRequest, match="elsewhere"):
        await catalog.remove(ModelId.parse("org/one"))
    assert (await catalog.find(ModelId.parse("org/one"))).location.is_dir()


async def test_a_model_of_ones_own_is_removed(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    model_folder(own, "org/made", size=3000)
    catalog = HuggingFaceCatalog((), {}, cache, own)
    assert await catalog.remove(ModelId.parse("org/made")) > 3000
    assert list(own.iterdir()) == []
    assert await catalog.all() == ()


async def test_a_link_among_ones_own_is_not_followed(cache: Path, tmp_path: Path) -> None:
    elsewhere = model_folder(tmp_path / "elsewhere", "one")
    own = tmp_path / "own"
    own.mkdir()
    (own / "linked").symlink_to(elsewhere)
    (own / "org").symlink_to(tmp_path / "elsewhere")
    catalog = HuggingFaceCatalog((), {}, cache, own)
    for name in ("linked", "org/one"):
        with pytest.raises(InvalidRequest, match="is a link"):
            await catalog.remove(ModelId.parse(name))
    assert (elsewhere / "config.json").is_file()


async def test_folders_of_others_are_not_deleted(cache: Path, tmp_path: Path) -> None:
    local = model_folder(tmp_path / "models", "local")
    demo = model_folder(tmp_path, "demo")
    catalog = HuggingFaceCatalog((str(local), "demo"), {"demo": demo}, cache)
    for name in ("local", "demo"):
        with pytest.raises(InvalidRequest, match="Only downloaded"):
            await catalog.remove(ModelId.parse(name))
    assert local.is_dir()
    assert demo.is_dir()


async def test_disk_use_counts_everything_of_a_repository(cache: Path) -> None:
    snapshot = cached_model(cache, "org/one")
    blobs = cache / "models--org--half" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'c' * 64}.incomplete").write_bytes(b"\0" * 5000)
    catalog = HuggingFaceCatalog((), {}, cache)
    use = await catalog.disk_use()
    half, one = use.models
    assert (str(half.id), half.whole, half.bytes_on_disk) == ("org/half", False, 5000)
    on_disk = sum(path.stat().st_size for path in snapshot.iterdir()) + 40  # refs/main
    assert (str(one.id), one.whole, one.bytes_on_disk) == ("org/one", True, on_disk)
    assert use.location == cache
    assert use.free > 0
    assert one.last_used > 1.6e9
    assert await catalog.remove(half.id) == 5000
    assert [str(model.id) for model in (await catalog.disk_use()).models] == ["org/one"]


async def test_a_cache_that_is_not_there_yet_holds_nothing(tmp_path: Path) -> None:
    use = await HuggingFaceCatalog((), {}, tmp_path / "a" / "b").disk_use()
    assert use.models == ()
    assert use.free > 0


async def test_a_change_is_seen_at_once(tmp_path: Path) -> None:
    """With the window of freshness in force."""
    catalog = HuggingFaceCatalog((), {}, tmp_path)
    assert await catalog.all() == ()
    snapshot = cached_model(tmp_path, "org/one")
    catalog.invalidate()
    assert len(await catalog.all()) == 1
    await catalog.remove(ModelId.parse("org/one"))
    assert await catalog.all() == ()
    assert not snapshot.exists()


async def test_a_model_that_somebody_else_deleted_is_not_found(tmp_path: Path) -> None:
    catalog = HuggingFaceCatalog((), {}, tmp_path)
    snapshot = cached_model(tmp_path, "org/one")
    await catalog.find(ModelId.parse("org/one"))
    for path in snapshot.iterdir():
        path.unlink()
    with pytest.raises(ModelNotFound):
        await catalog.find(ModelId.parse("org/one"))


async def test_a_revision_that_was_pulled_is_found_at_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_model(cache, "org/one", "a" * 40)
    catalog = HuggingFaceCatalog((), {}, cache)
    model = ModelId.parse("org/one")
    assert (await catalog.find(model)).revision == "a" * 40
    monkeypatch.setattr(module, "_FRESH_FOR", 1000.0)
    cached_model(cache, "org/one", "b" * 40)
    catalog.invalidate()
    assert (await catalog.find(model)).revision == "b" * 40


async def test_a_revision_that_somebody_else_pulled_is_found(cache: Path) -> None:
    cached_model(cache, "org/one", "a" * 40)
    catalog = HuggingFaceCatalog((), {}, cache)
    model = ModelId.parse("org/one")
    assert (await catalog.find(model)).revision == "a" * 40
    cached_model(cache, "org/one", "b" * 40)
    assert (await catalog.find(model)).revision == "b" * 40
