"""The hub as a source of models: the real client against a stub of the hub, over a socket."""

import asyncio
import os
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir

from adapters.huggingface.source import HubOptions, HuggingFaceSource
from domain.errors import HubFailed, HubFault, InvalidRequest
from domain.models import ModelId, PullPhase
from tests.adapters.hub_tools import (
    MODEL,
    a_source,
    digest,
    files,
    leads_out,
    listed,
    names,
    needed,
    partials,
    pull,
    snapshot,
)
from tests.stub_hub import Fault, StubHub
from tests.tiny import QWEN3, make_model

SHARD_1, SHARD_2 = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


async def test_a_pull_makes_a_model_of_the_catalog(hub: StubHub, tmp_path: Path) -> None:
    repo = hub.add(str(MODEL), files())
    progresses = await pull(a_source(hub, tmp_path))
    phases = [progress.phase for progress in progresses]
    assert sorted(phases, key=list(PullPhase).index) == phases
    assert set(phases) == set(PullPhase)
    assert phases.count(PullPhase.DONE) == 1
    commit = repo.revisions["main"]
    last, wanted = progresses[-1], needed(files())
    assert (last.phase, last.revision) == (PullPhase.DONE, commit)
    size = sum(len(content) for content in wanted.values())
    assert (last.bytes_done, last.bytes_total) == (size, size)
    assert (last.files_done, last.files_total) == (len(wanted), len(wanted))
    assert snapshot(tmp_path, commit) == wanted
    assert await listed(tmp_path) == {str(MODEL): commit}
    assert partials(tmp_path) == {}


async def test_a_real_model_arrives(hub: StubHub, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "made", QWEN3, bits=4)
    hub.add_folder(str(MODEL), folder)
    await pull(a_source(hub, tmp_path / "cache"))
    (commit,) = (await listed(tmp_path / "cache")).values()
    arrived = snapshot(tmp_path / "cache", commit)
    assert arrived == {name: (folder / name).read_bytes() for name in arrived}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= arrived.keys()


async def test_the_cache_is_one_that_the_library_understands(hub: StubHub, tmp_path: Path) -> None:
    repo = hub.add(str(MODEL), files())
    await pull(a_source(hub, tmp_path))
    (cached,) = scan_cache_dir(tmp_path).repos
    (revision,) = cached.revisions
    assert (revision.commit_hash, revision.refs) == (repo.revisions["main"], {"main"})
    hub.seen.clear()
    path = hf_hub_download(
        str(MODEL), SHARD_1, revision=revision.commit_hash, cache_dir=tmp_path, endpoint=hub.url
    )
    assert path == str(revision.snapshot_path / SHARD_1)
    assert hub.seen == []


async def test_what_the_library_has_downloaded_is_not_fetched_again(
    hub: StubHub, tmp_path: Path
) -> None:
    hub.add(str(MODEL), files())
    hf_hub_download(str(MODEL), SHARD_1, cache_dir=tmp_path, endpoint=hub.url)
    hub.seen.clear()
    await pull(a_source(hub, tmp_path))
    assert hub.fetched(SHARD_1) == []
    assert len(hub.fetched(SHARD_2)) == 1


async def test_progress_tells_speed_and_comes_at_most_five_times_a_second(
    hub: StubHub, tmp_path: Path
) -> None:
    hub.add(str(MODEL), files(400_000))
    hub.faults.append(Fault(path="/cdn/", rate=400_000))
    began = time.monotonic()
    progresses = await pull(a_source(hub, tmp_path))
    lasted = time.monotonic() - began
    downloading = [p for p in progresses if p.phase is PullPhase.DOWNLOADING]
    done = [p.bytes_done for p in downloading]
    assert done == sorted(done)
    assert len(set(done)) > 3
    assert len(progresses) <= lasted * 5 + 6  # and one at each turn
    assert 50_000 < downloading[-1].bytes_per_second < 5_000_000
    assert downloading[2].seconds_left is not None


async def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add(str(MODEL), files())
    await pull(a_source(hub, tmp_path))
    tokens = {(seen.path.split("/")[1], seen.token) for seen in hub.seen}
    assert tokens == {("api", "hf_secret"), ("org", "hf_secret"), ("cdn", None)}


async def test_only_what_is_needed_is_fetched(hub: StubHub, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    code = f"open({str(sentinel)!r}, 'w')".encode()
    harmful = {
        "modeling.py": code,
        "tokenization_x.py": code,
        "pytorch_model.bin": code,
        "model.pt": code,
        "model.pth": code,
        "model.pkl": code,
        "model.gguf": code,
        "weights.npz": code,
        "weights.npy": code,
        "model.onnx": code,
        "onnx/model.safetensors": code,
        "../tokenizer.json": code,
        "/etc/tokenizer.json": code,
        "..": code,
        "sub/../../config.json": code,
        "sub/x.tiktoken": code,
        "model/../../x.safetensors": code,
        "tokenizer/../../x.json": code,
    }
    config = b'{"model_type": "x", "auto_map": {"AutoModel": "modeling.X"}, "model_file": "a.py"}'
    repo = hub.add(str(MODEL), {**files(), **harmful, "config.json": config})
    cache = tmp_path / "cache"
    await pull(a_source(hub, cache))
    fetched = {seen.path.partition("/resolve/")[2][41:] for seen in hub.seen} - {""}
    assert fetched == needed(files()).keys()
    assert snapshot(cache, repo.revisions["main"]).keys() == fetched
    assert not sentinel.exists()
    assert names(tmp_path) == {"cache"}
    assert leads_out(cache) == []


async def test_a_symlink_of_a_repository_is_only_text(hub: StubHub, tmp_path: Path) -> None:
    """Git keeps a link as a file with its target inside, and so does the hub."""
    repo = hub.add(str(MODEL), {**files(), "chat_template.jinja": b"/etc/passwd"})
    await pull(a_source(hub, tmp_path))
    commit = repo.revisions["main"]
    assert snapshot(tmp_path, commit)["chat_template.jinja"] == b"/etc/passwd"
    assert leads_out(tmp_path) == []


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (["model.gguf", "README.md"], "holds only GGUF files"),
        (["pytorch_model.bin", "config.json"], "holds only PyTorch pickles"),
        (["weights.npz", "model.onnx"], "holds only NumPy files and ONNX files"),
        (["adapters.safetensors", "config.json"], "holds only an adapter"),
        (["README.md"], "holds no weights in safetensors form"),
        (["unet/model.safetensors"], "holds no weights in safetensors form"),
        (["model.safetensors", "tokenizer.json"], "has no config.json"),
        (["model.safetensors", "config.json"], "has no tokenizer"),
    ],
)
async def test_what_mlx_can_not_load_is_not_downloaded(
    hub: StubHub, tmp_path: Path, contents: list[str], words: str
) -> None:
    hub.add(str(MODEL), dict.fromkeys(contents, b"x"))
    with pytest.raises(HubFailed, match=words) as failure:
        await pull(a_source(hub, tmp_path))
    assert failure.value.fault is HubFault.UNSUITABLE
    assert not any("/resolve/" in seen.path for seen in hub.seen)


async def test_a_model_that_is_here_is_only_verified(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    await pull(a_source(hub, tmp_path))
    hub.seen.clear()
    progresses = await pull(a_source(hub, tmp_path))
    assert [seen.path for seen in hub.seen] == ["/api/models/org/model"]
    assert progresses[-1].phase is PullPhase.DONE


async def test_damage_on_the_disk_is_repaired(hub: StubHub, tmp_path: Path) -> None:
    repo = hub.add(str(MODEL), files())
    await pull(a_source(hub, tmp_path))
    content = files()[SHARD_1]
    blob = tmp_path / "models--org--model" / "blobs" / digest(content)
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    hub.seen.clear()
    await pull(a_source(hub, tmp_path))
    assert len(hub.fetched(SHARD_1)) == 1
    assert hub.fetched(SHARD_2) == []
    assert snapshot(tmp_path, repo.revisions["main"]) == needed(files())


async def test_a_model_is_invisible_until_it_is_whole(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files(300_000))
    hub.faults.append(Fault(path="/cdn/", rate=300_000))
    looks = 0
    async with aclosing(a_source(hub, tmp_path).pull(MODEL)) as progresses:
        async for progress in progresses:
            if progress.phase is not PullPhase.DONE:
                looks += 1
                assert await listed(tmp_path) == {}
    assert looks > 4
    assert await listed(tmp_path) != {}


async def test_the_old_revision_serves_until_the_new_one_is_whole(
    hub: StubHub, tmp_path: Path
) -> None:
    repo = hub.add(str(MODEL), files())
    old = repo.revisions["main"]
    await pull(a_source(hub, tmp_path))
    new = repo.commit(files(seed=2))
    async with aclosing(a_source(hub, tmp_path).pull(MODEL)) as progresses:
        async for progress in progresses:
            done = progress.phase is PullPhase.DONE
            assert await listed(tmp_path) == {str(MODEL): new if done else old}
    assert snapshot(tmp_path, old) == needed(files())
    assert snapshot(tmp_path, new) == needed(files(seed=2))


async def test_the_links_of_another_tool_do_not_show_it_early(hub: StubHub, tmp_path: Path) -> None:
    """Its config may be here already: transformers fetches that alone."""
    hub.add(str(MODEL), files())
    for name in ("config.json", "model.safetensors.index.json"):
        hf_hub_download(str(MODEL), name, cache_dir=tmp_path, endpoint=hub.url)
    async with aclosing(a_source(hub, tmp_path).pull(MODEL)) as progresses:
        async for progress in progresses:
            if progress.phase is not PullPhase.DONE:
                assert await listed(tmp_path) == {}
    assert await listed(tmp_path) != {}


async def test_a_branch_that_moves_amid_a_pull_mixes_nothing(hub: StubHub, tmp_path: Path) -> None:
    repo = hub.add(str(MODEL), files())
    old = repo.revisions["main"]
    async with aclosing(a_source(hub, tmp_path).pull(MODEL)) as progresses:
        async for progress in progresses:
            if progress.phase is PullPhase.DOWNLOADING and len(repo.commits) == 1:
                repo.commit(files(seed=2))
    assert progress.revision == old
    assert snapshot(tmp_path, old) == needed(files())
    assert await listed(tmp_path) == {str(MODEL): old}


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", "feature/x"])
async def test_another_revision_can_be_asked_for(
    hub: StubHub, tmp_path: Path, revision: str
) -> None:
    repo = hub.add(str(MODEL), files())
    commit = repo.commit(files(seed=2), revision)
    await pull(a_source(hub, tmp_path), revision=revision)
    assert snapshot(tmp_path, commit) == needed(files(seed=2))
    assert (tmp_path / "models--org--model" / "refs" / revision).read_text() == commit


async def test_a_commit_leaves_no_reference(hub: StubHub, tmp_path: Path) -> None:
    repo = hub.add(str(MODEL), files())
    await pull(a_source(hub, tmp_path), revision=repo.revisions["main"])
    assert not (tmp_path / "models--org--model" / "refs").exists()
    assert await listed(tmp_path) == {str(MODEL): repo.revisions["main"]}


@pytest.mark.parametrize("revision", ["", "..", "../x", "/x", "a//b", "a b", "a\0b", "x" * 300])
async def test_what_is_no_revision_is_refused(hub: StubHub, tmp_path: Path, revision: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await pull(a_source(hub, tmp_path), revision=revision)
    assert refusal.value.param == "revision"
    assert hub.seen == []


async def test_the_catalog_can_be_told(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    told: list[bool] = []
    options = HubOptions(tmp_path, hub.url)
    source = HuggingFaceSource(options, changed=lambda: told.append(True))
    async with aclosing(source.pull(MODEL)) as progresses:
        async for progress in progresses:
            assert told == [True] * (progress.phase is PullPhase.DONE)
    assert told == [True]


async def test_closing_stops_at_once_and_keeps_what_came(hub: StubHub, tmp_path: Path) -> None:
    content = files()[SHARD_1]
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/cdn/", stall_at=100_000))
    source = a_source(hub, tmp_path, stall_timeout=60)
    async with aclosing(source.pull(MODEL)) as progresses:
        async for progress in progresses:
            if progress.bytes_done > 200_000:
                break
        await asyncio.sleep(0.3)  # both shards are stalled now
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert partials(tmp_path)[digest(content)] > 90_000  # the rest when its thread has ended
    hub.faults.clear()
    hub.seen.clear()
    began = time.monotonic()
    await pull(source)  # needs the locks of the threads that were stopped
    assert time.monotonic() - began < 10
    assert [seen.range for seen in hub.fetched(SHARD_1)] == ["bytes=100000-"]


async def test_cancelling_while_the_hub_says_nothing(hub: StubHub, tmp_path: Path) -> None:
    hub.faults.append(Fault(hang=True))
    task = asyncio.create_task(pull(a_source(hub, tmp_path, stall_timeout=60)))
    await asyncio.sleep(0.5)
    assert hub.seen
    began = time.monotonic()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert time.monotonic() - began < 1


async def test_two_pulls_of_a_model_share_the_work(hub: StubHub, tmp_path: Path) -> None:
    repo = hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/cdn/", rate=400_000))
    await asyncio.gather(*(pull(a_source(hub, tmp_path)) for _ in range(3)))
    assert snapshot(tmp_path, repo.revisions["main"]) == needed(files())
    for name in needed(files()):
        assert len(hub.fetched(name)) == 1


async def test_a_disk_without_links_gets_files(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no links here")

    twins = {**files(), "special_tokens_map.json": b"{}", "added_tokens.json": b"{}"}
    repo = hub.add(str(MODEL), twins)
    monkeypatch.setattr(os, "symlink", refuse)
    await pull(a_source(hub, tmp_path))
    commit = repo.revisions["main"]
    assert snapshot(tmp_path, commit) == needed(twins)
    assert await listed(tmp_path) == {str(MODEL): commit}
    hub.seen.clear()
    await pull(a_source(hub, tmp_path))
    assert [seen.path for seen in hub.seen] == ["/api/models/org/model"]


async def test_search_finds_mlx_models_by_downloads(hub: StubHub, tmp_path: Path) -> None:
    four_bits = {"quantization_config": {"bits": 4}}
    hub.add("org/Qwen-a", {}, downloads=5, config=four_bits, parameters={"U32": 10, "BF16": 4})
    hub.add("org/qwen-b-8bit", {}, downloads=9, likes=3, gated="t")
    hub.add("org/qwen-c", {}, downloads=7, tags=["mlx", "4-bit"], parameters={"F4_X": 4})
    hub.add("org/qwen-d", {}, downloads=1)
    hub.add("org/qwen-torch", {}, downloads=99, tags=["pytorch"])
    hub.add("org/llama", {}, downloads=99)
    source = a_source(hub, tmp_path)
    b, c, a, d = await source.search("qwen", 10)
    assert [str(model.id) for model in (b, c, a, d)] == [
        "org/qwen-b-8bit",
        "org/qwen-c",
        "org/Qwen-a",
        "org/qwen-d",
    ]
    assert (a.size, a.quantization, a.gated, a.downloads) == (48, "4-bit", False, 5)
    assert (b.size, b.quantization, b.gated, b.likes) == (None, "8-bit", True, 3)
    assert (c.size, c.quantization) == (2, "4-bit")
    assert (d.quantization, d.updated) == (None, "2026-01-02T03:04:05+00:00")
    assert await source.search("qwen", 2) == (b, c)
    assert await source.search("nothing", 2) == ()
    assert len(hub.seen) == 3


async def test_offline_asks_nobody(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(source: HuggingFaceSource) -> None:
        for asking in (pull(source), source.search("x", 1)):
            with pytest.raises(HubFailed, match="offline") as failure:
                await asking
            assert failure.value.fault is HubFault.OFFLINE

    def refuse(*args: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    await check(a_source(hub, tmp_path, offline=True))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    await check(a_source(hub, tmp_path))
    assert hub.seen == []


async def test_a_name_that_the_hub_could_not_have(hub: StubHub, tmp_path: Path) -> None:
    with pytest.raises(HubFailed) as failure:
        await pull(a_source(hub, tmp_path), ModelId.parse("no such/näme"))
    assert failure.value.fault is HubFault.MISSING
    assert hub.seen == []
