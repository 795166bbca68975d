"""A restart loses no download and no cache."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Program, portico_serve
from tests.servers import safetensors
from tests.stub_hub import Fault, StubHub, stub_hub
from tests.waiting import until

WEIGHTS = 4_000_000
FILES = {
    "config.json": json.dumps({"model_type": "llama", "max_position_embeddings": 512}).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors(WEIGHTS),
}
PROMPT = " ".join(f"What is Portico, and who is number {n}?" for n in range(12))


def sigterm(program: Program) -> None:
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(30) == 0


def pull(url: str) -> str:
    """The id of its job."""
    answer = httpx.post(f"{url}/api/v1/pulls", json={"model": "org/model"}, timeout=30)
    assert answer.status_code == 202
    return str(answer.json()["id"])


def state_of(url: str, job: str) -> str:
    return str(httpx.get(f"{url}/api/v1/pulls/{job}", timeout=30).json()["state"])


def kill(program: Program) -> None:
    program.process.kill()
    assert program.process.wait(30) == -signal.SIGKILL


def models_of(url: str) -> set[str]:
    return {model["id"] for model in httpx.get(f"{url}/v1/models", timeout=30).json()["data"]}


@contextmanager
def broken_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[Program], None]
) -> Iterator[tuple[StubHub, str]]:
    """A slow hub, and the id of a download from it that ended amid the weights, with its server."""
    with stub_hub() as hub:
        hub.add("org/model", FILES)
        hub.faults.append(Fault(path="/cdn/", rate=100_000))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        with portico_serve(folder, "--backend", "scripted") as program:
            job = pull(program.url)
            assert until(lambda: bool(partial(folder)), 30)
            end(program)
        hub.seen.clear()
        yield hub, job


@pytest.mark.parametrize("end", [sigterm, kill])
def test_a_download_goes_on_by_itself_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[Program], None]
) -> None:
    with broken_off(tmp_path, monkeypatch, end) as (hub, job):
        (size,) = partial(tmp_path)
        assert 0 < size < WEIGHTS
        hub.faults.clear()
        with portico_serve(tmp_path, "--backend", "scripted") as program:
            # Nobody asks for it again; the job is called as before.
            assert until(lambda: state_of(program.url, job) == "done", 30)
            assert "org/model" in models_of(program.url)
        asked = [seen.range for seen in hub.seen if "/cdn/" in seen.path and seen.range]
        assert asked == [f"bytes={size}-"]
        hub.seen.clear()
        with portico_serve(tmp_path, "--backend", "scripted") as program:
            assert httpx.get(f"{program.url}/api/v1/pulls").json() == {"data": []}
        assert hub.seen == []


@pytest.mark.parametrize("setting", ["OFFLINE", "ALLOW_PULLS"])
def test_no_download_goes_on_where_none_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    with broken_off(tmp_path, monkeypatch, kill) as (hub, job):
        monkeypatch.setenv(f"PORTICO_{setting}", "1" if setting == "OFFLINE" else "0")
        with portico_serve(tmp_path, "--backend", "scripted") as program:
            assert httpx.get(f"{program.url}/api/v1/pulls").json() == {"data": []}
        assert hub.seen == []
        monkeypatch.delenv(f"PORTICO_{setting}")
        with portico_serve(tmp_path, "--backend", "scripted") as program:
            assert state_of(program.url, job) == "running"


def partial(home: Path) -> list[int]:
    """What has come of the weights, while they are not whole."""
    sizes = [file.stat().st_size for file in home.rglob("*.incomplete")]
    return [size for size in sizes if size > len(FILES["config.json"])]


def test_a_prompt_is_found_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an engine process, which is given the time for it."""
    monkeypatch.setenv("PORTICO_PREFIX_CACHE_DISK_GB", "1")
    monkeypatch.setenv("PORTICO_PREFIX_CACHE_DIR", str(tmp_path / "prefixes"))
    monkeypatch.setenv("PORTICO_ISOLATION", "process")
    cached = []
    for _ in range(2):
        with portico_serve(tmp_path) as program:
            cached.append(cached_tokens(program.url))
            sigterm(program)  # at once: nothing has been written by itself yet
    assert cached[0] == 0
    assert cached[1] > 50


def cached_tokens(url: str) -> int:
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 1}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
