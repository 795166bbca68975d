"""What a hub, a network, a disk or a power cut can do to a download."""

import asyncio
import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from domain.errors import HubFailed, HubFault
from domain.models import PullPhase
from tests.adapters.hub_tools import (
    MODEL,
    a_source,
    digest,
    files,
    listed,
    names,
    needed,
    partials,
    pull,
    snapshot,
)
from tests.stub_hub import Fault, StubHub, git_id, is_lfs
from tests.waiting import eventually

SHARD = "model-00001-of-00002.safetensors"
CDN_SHARD = f"/{SHARD}"
SECRET = "hf_averysecrettoken"  # noqa: S105 - of nobody


async def fails(hub: StubHub, cache: Path, fault: HubFault, **options: Any) -> str:
    """The message of the failure. Nothing of it is listed."""
    with pytest.raises(HubFailed) as failure:
        await pull(a_source(hub, cache, **options))
    assert failure.value.fault is fault
    assert await listed(cache) == {}
    return str(failure.value)


async def arrives(hub: StubHub, cache: Path) -> None:
    await pull(a_source(hub, cache))
    commit = hub.repos[str(MODEL)].revisions["main"]
    assert snapshot(cache, commit) == needed(files())
    assert await listed(cache) == {str(MODEL): commit}
    assert partials(cache) == {}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/api/", times=2, status=503),
        Fault(path="/api/", times=2, status=429, headers={"Retry-After": "0"}),
        Fault(path="/resolve/", times=4, status=503),
        Fault(path="/cdn/", times=3, status=429, headers={"Retry-After": "0"}),
        Fault(path="/cdn/", times=3, status=500),
        Fault(path="/cdn/", times=3, drop_at=50_000),
        Fault(path="/cdn/", times=1, drop_at=0),
        Fault(path="/cdn/", times=1, stall_at=70_000),
        Fault(path=CDN_SHARD, times=1, body=b"short"),
        Fault(path=CDN_SHARD, times=1, corrupt=True),
        Fault(path=CDN_SHARD, times=1, body=b"x" * 500_000),
        Fault(path="/tokenizer.json", times=1, corrupt=True),
    ],
    ids=lambda fault: ", ".join(f"{k}={v}" for k, v in vars(fault).items() if v)[:60],
)
async def test_passing_faults_are_survived(hub: StubHub, tmp_path: Path, fault: Fault) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(fault)
    began_with = fault.times
    await arrives(hub, tmp_path)
    assert fault.times == 0 != began_with


async def test_a_dropped_connection_goes_on_where_it_was(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path=CDN_SHARD, times=2, drop_at=50_000))
    hub.faults.append(Fault(path=CDN_SHARD, times=1, drop_at=120_000))
    hub.faults[0].path = f"/cdn/{digest(files()[SHARD])}"
    hub.faults[1].path = hub.faults[0].path
    await arrives(hub, tmp_path)
    ranges = [seen.range for seen in hub.seen if "/cdn/" in seen.path and SHARD in seen.path]
    assert ranges == [None, "bytes=50000-", "bytes=50000-", "bytes=120000-"]


def leave_part(cache: Path, size: int, noise: int = 0) -> None:
    blobs = cache / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    content = files()[SHARD]
    part = (content + b"x" * 10_000_000)[: size - noise] + b"?" * noise
    (blobs / f"{digest(content)}.incomplete").write_bytes(part)


async def test_a_server_that_ignores_ranges_sends_it_all_again(
    hub: StubHub, tmp_path: Path
) -> None:
    hub.add(str(MODEL), files())
    leave_part(tmp_path, 90_000)
    hub.faults.append(Fault(path="/cdn/", ignore_range=True))
    await arrives(hub, tmp_path)
    assert [seen.range for seen in hub.fetched(SHARD)] == ["bytes=90000-"]


async def test_a_server_that_refuses_the_range_is_asked_for_all_of_it(
    hub: StubHub, tmp_path: Path
) -> None:
    hub.add(str(MODEL), files())
    leave_part(tmp_path, 90_000)
    hub.faults.append(Fault(path="/cdn/", refuse_range=True))
    await arrives(hub, tmp_path)
    assert [seen.range for seen in hub.fetched(SHARD)] == ["bytes=90000-", None]


async def test_a_part_that_is_too_long_starts_over(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    leave_part(tmp_path, 900_000)
    await arrives(hub, tmp_path)
    assert [seen.range for seen in hub.fetched(SHARD)] == [None]


async def test_a_part_with_wrong_bytes_is_noticed(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    leave_part(tmp_path, 90_000, noise=5)
    await arrives(hub, tmp_path)
    assert [seen.range for seen in hub.fetched(SHARD)] == ["bytes=90000-", None]


@pytest.mark.parametrize("path", [CDN_SHARD, "/tokenizer.json"])
async def test_bytes_that_stay_wrong_are_corrupt(hub: StubHub, tmp_path: Path, path: str) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path=path, corrupt=True))
    message = await fails(hub, tmp_path, HubFault.CORRUPT)
    assert path.strip("/") in message
    assert len(hub.fetched(path.strip("/"))) == 2
    blobs = names(tmp_path / "models--org--model" / "blobs")
    assert blobs == {
        digest(content) if is_lfs(name) else git_id(content)
        for name, content in needed(files()).items()
        if name != path.strip("/")
    }


async def test_a_hub_that_tells_no_checksums_is_not_believed(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files().items()]
    hub.info_override = {"sha": "a" * 40, "siblings": siblings}
    assert "verified" in await fails(hub, tmp_path, HubFault.CORRUPT)
    siblings[:] = [dict(s, blobId="../../../../tmp/x") for s in siblings]
    await fails(hub, tmp_path, HubFault.CORRUPT)
    siblings[:] = [dict(s, blobId="a" * 40) for s in siblings]
    hub.info_override["sha"] = "../../x"
    await fails(hub, tmp_path, HubFault.CORRUPT)
    assert names(tmp_path) == set()


async def test_a_stall_is_told(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/cdn/", stall_at=60_000))
    began = time.monotonic()
    message = await fails(hub, tmp_path, HubFault.STALLED)
    assert time.monotonic() - began < 10
    assert "what has come is kept" in message
    assert partials(tmp_path)[digest(files()[SHARD])] == 60_000


@pytest.mark.parametrize("path", ["/api/", "/resolve/"])
async def test_a_hub_that_never_answers_is_a_stall(hub: StubHub, tmp_path: Path, path: str) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path=path, hang=True))
    await fails(hub, tmp_path, HubFault.STALLED)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("path", ["/api/", "/resolve/", "/cdn/"])
async def test_a_hub_that_stays_overloaded_is_busy(
    hub: StubHub, tmp_path: Path, path: str, status: int
) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path=path, status=status))
    assert "Try again" in await fails(hub, tmp_path, HubFault.BUSY)
    assert 3 <= len([seen for seen in hub.seen if path in seen.path]) < 60


async def test_retry_after_is_honoured_within_reason(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/api/", times=1, status=429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    await arrives(hub, tmp_path)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "3600"}, {"ratelimit": '"api";r=0;t=3600'}], ids=str
)
async def test_a_long_retry_after_is_passed_on(
    hub: StubHub, tmp_path: Path, headers: dict[str, str]
) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/api/", status=429, headers=headers))
    assert "in 3600 seconds" in await fails(hub, tmp_path, HubFault.BUSY)
    assert len(hub.seen) == 1
    with pytest.raises(HubFailed) as failure:
        await a_source(hub, tmp_path).search("x", 3)
    assert failure.value.fault is HubFault.BUSY


async def test_nobody_is_there(hub: StubHub, tmp_path: Path) -> None:
    refused = "http://127.0.0.1:9"
    message = await fails(hub, tmp_path, HubFault.UNREACHABLE, endpoint=refused)
    assert "127.0.0.1:9" in message
    assert "HF_ENDPOINT" in message
    unknown = "http://hub.invalid"
    assert "hub.invalid" in await fails(hub, tmp_path, HubFault.UNREACHABLE, endpoint=unknown)
    with pytest.raises(HubFailed) as failure:
        await a_source(hub, tmp_path, endpoint=refused).search("x", 3)
    assert failure.value.fault is HubFault.UNREACHABLE


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"[]", b"{}"])
async def test_something_else_answers(hub: StubHub, tmp_path: Path, body: bytes) -> None:
    hub.raw_answer = body
    message = await fails(hub, tmp_path, HubFault.UNREACHABLE)
    assert "not what a model hub says" in message


async def test_the_credentials_of_an_endpoint_are_not_told(hub: StubHub, tmp_path: Path) -> None:
    endpoint = hub.url.replace("://", "://me:password@")
    message = await fails(hub, tmp_path, HubFault.MISSING, endpoint=endpoint)
    assert "password" not in message


async def test_a_repository_that_is_not_there(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "set HF_TOKEN" in await fails(hub, tmp_path, HubFault.MISSING)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert "no `org/model`" in await fails(hub, tmp_path, HubFault.MISSING)


async def test_a_revision_that_is_not_there(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    with pytest.raises(HubFailed, match="no revision `v9`") as failure:
        await pull(a_source(hub, tmp_path), revision="v9")
    assert failure.value.fault is HubFault.MISSING


async def test_a_repository_that_goes_amid_a_pull(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/cdn/", status=404))
    await fails(hub, tmp_path, HubFault.MISSING)


async def test_a_renamed_repository(hub: StubHub, tmp_path: Path) -> None:
    hub.add("org/new", files())
    hub.renamed[str(MODEL)] = "org/new"
    message = await fails(hub, tmp_path, HubFault.RENAMED)
    assert "`org/new`" in message
    assert names(tmp_path) == set()


async def test_a_token_that_is_wrong(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(str(MODEL), files())
    hub.tokens = {"another"}
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert "HF_TOKEN" in await fails(hub, tmp_path, HubFault.UNAUTHORIZED)
    with pytest.raises(HubFailed) as failure:
        await a_source(hub, tmp_path).search("x", 3)
    assert failure.value.fault is HubFault.UNAUTHORIZED


async def test_a_gated_repository(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(str(MODEL), files(), gated="the-right-one")
    message = await fails(hub, tmp_path, HubFault.GATED)
    assert f"{hub.url}/org/model" in message
    assert "set HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert "account of your HF_TOKEN" in await fails(hub, tmp_path, HubFault.GATED)
    monkeypatch.setenv("HF_TOKEN", "the-right-one")
    await arrives(hub, tmp_path)


async def test_a_403_is_gated(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/resolve/", status=403))
    await fails(hub, tmp_path, HubFault.GATED)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/api/", status=401),
        Fault(path="/api/", status=403),
        Fault(path="/api/", status=404),
        Fault(path="/api/", status=418),
        Fault(path="/resolve/", status=503),
        Fault(path="/cdn/", corrupt=True),
        Fault(path="/cdn/", drop_at=5),
        Fault(path="/api/", hang=True),
    ],
    ids=str,
)
async def test_the_token_is_never_told(
    hub: StubHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.add(str(MODEL), files())
    hub.faults.append(fault)
    source = a_source(hub, tmp_path)
    with pytest.raises(HubFailed) as failure:
        await pull(source)
    assert hub.seen[0].token == SECRET
    told = "".join(traceback.format_exception(failure.value))
    assert SECRET not in told + repr(source) + repr(failure.value) + caplog.text


async def test_a_token_that_can_not_be_one(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(str(MODEL), files())
    monkeypatch.setenv("HF_TOKEN", "hf_se\u2026cret")  # copied from a page that shortened it
    with pytest.raises(HubFailed, match="HF_TOKEN") as failure:
        await pull(a_source(hub, tmp_path))
    assert failure.value.fault is HubFault.UNAUTHORIZED
    told = "".join(traceback.format_exception(failure.value))
    assert "cret" not in told


async def test_a_disk_that_is_too_small_is_told_first(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    hub.add(str(MODEL), files())
    message = await fails(hub, tmp_path, HubFault.DISK_FULL)
    assert "0.4 MB" in message
    assert "0.1 MB" in message
    assert not any("/resolve/" in seen.path for seen in hub.seen)


async def test_only_what_is_missing_has_to_fit(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(str(MODEL), files())
    leave_part(tmp_path, 150_000)
    usage = shutil.disk_usage(tmp_path)._replace(free=300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    await arrives(hub, tmp_path)


class SmallDisk:
    """A file of which only 150 kB fit."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> "SmallDisk":
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def write(self, piece: bytes) -> int:
        if self._file.tell() + len(piece) > 150_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._file.write(piece))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


async def test_a_disk_that_fills_up_is_told_and_given_back(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_it = Path.open

    def open_small(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        file = open_it(path, mode, *more, **options)
        return SmallDisk(file) if mode in {"ab", "wb"} else file

    monkeypatch.setattr(Path, "open", open_small)
    hub.add(str(MODEL), files())
    message = await fails(hub, tmp_path, HubFault.DISK_FULL)
    assert "is full" in message
    assert all(size < 1000 for size in partials(tmp_path).values())
    monkeypatch.undo()
    await arrives(hub, tmp_path)


async def test_a_cache_that_can_not_be_written(hub: StubHub, tmp_path: Path) -> None:
    hub.add(str(MODEL), files())
    (tmp_path / "file").write_text("")
    with pytest.raises(HubFailed, match="can't be written") as failure:
        await pull(a_source(hub, tmp_path / "file"))
    assert failure.value.fault is HubFault.UNWRITABLE


Starting = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(hub: StubHub, tmp_path: Path) -> Iterator[Starting]:
    """A process that pulls the model into the test's folder."""
    processes: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.adapters.pull_script", hub.url, str(tmp_path)]
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "HF_HUB_OFFLINE": "0"},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def kill_at(process: "subprocess.Popen[str]", cache: Path, size: int) -> None:
    """Once the unfinished files have grown to that many bytes, or the process has ended."""
    while process.poll() is None and sum(partials(cache).values()) < size:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def test_kill_9_at_twenty_points_of_a_download(
    hub: StubHub, tmp_path: Path, start: Starting
) -> None:
    all_files = files(1_000_000)
    repo = hub.add(str(MODEL), all_files)
    hub.faults.append(Fault(path="/cdn/", rate=4_000_000))
    points = sorted(random.Random(9).sample(range(50_000, 1_990_000), 20))  # noqa: S311
    kept = 0
    for point in points:
        process = start()
        await asyncio.to_thread(kill_at, process, tmp_path, point)
        assert await listed(tmp_path) == {}
        now = sum(partials(tmp_path).values())
        assert now >= kept
        kept = now
    assert kept >= points[-1]
    async with aclosing(a_source(hub, tmp_path).pull(MODEL)) as progresses:
        async for progress in progresses:
            visible = progress.phase is PullPhase.DONE
            assert (await listed(tmp_path) != {}) == visible
    assert snapshot(tmp_path, repo.revisions["main"]) == needed(all_files)
    for name in needed(all_files):
        ranges = [seen.range for seen in hub.fetched(name)]
        starts = [int(r.removeprefix("bytes=").rstrip("-")) if r else 0 for r in ranges]
        assert starts == sorted(starts)
    asked = sum(len(hub.fetched(name)) for name in needed(all_files))
    assert asked < 2 * len(points) + 30


async def test_two_processes_pull_one_model(hub: StubHub, tmp_path: Path, start: Starting) -> None:
    repo = hub.add(str(MODEL), files(500_000))
    hub.faults.append(Fault(path="/cdn/", rate=1_000_000))
    processes = [start() for _ in range(2)]
    outputs = [await asyncio.to_thread(process.communicate) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(out.splitlines()[-1].startswith("done") for out, _ in outputs)
    assert snapshot(tmp_path, repo.revisions["main"]) == needed(files(500_000))
    assert len(hub.fetched(SHARD)) == 1


async def test_an_interpreter_ends_while_the_hub_is_silent(
    hub: StubHub, tmp_path: Path, start: Starting
) -> None:
    hub.add(str(MODEL), files())
    hub.faults.append(Fault(path="/cdn/", stall_at=50_000))
    process = start()
    await eventually(lambda: sum(partials(tmp_path).values()) >= 80_000)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    await asyncio.to_thread(process.communicate)
    assert time.monotonic() - began < 5
    assert process.returncode != 0
