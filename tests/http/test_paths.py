"""Model ids that would be paths: nothing outside the models' folder is ever looked at."""

import builtins
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.container import Container
from tests.fakes import FakeSource
from tests.http.managed import error_of
from tests.servers import LiveServer, live_server, model_folder, scripted_settings

IDS = [
    "../outside",
    "..",
    ".",
    "../../outside",
    "/etc/passwd",
    "//etc/passwd",
    "OUTSIDE",  # stands for its absolute path
    "~/outside",
    "%2e%2e/outside",
    "%2e%2e%2foutside",
    "..%2foutside",
    "..%252foutside",
    "..\\outside",
    "C:\\outside",
    "a/../../outside",
    "m/../outside",
    "a/b/c",
    "m/",
    "/m",
    "m\0",
    "\0../outside",
    "m\n",
    "\uff0e\uff0e/outside",
    "\u2024\u2024/outside",
    "\u2025/outside",
    "..\u2215outside",
    "file:///etc/passwd",
    "https://evil.test/x",
    "sha256:../outside",
    "x" * 10_000,
    "../" * 3000 + "outside",
    "models--../outside",
    "..--outside",
    "",
    " ",
]


class Spy:
    """What the process has looked at, by the functions that all of Python's files go through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        for owner, name in (
            (os, "stat"),
            (os, "lstat"),
            (os, "open"),
            (os, "listdir"),
            (os, "scandir"),
            (os, "readlink"),
            (os, "unlink"),
            (os, "rmdir"),
            (io, "open"),
            (builtins, "open"),
        ):
            monkeypatch.setattr(owner, name, self._noting(getattr(owner, name)))

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(path: Any = ".", *rest: Any, **options: Any) -> Any:
            if isinstance(path, str | bytes | os.PathLike):
                self.seen.append(os.fsdecode(path))
            return function(path, *rest, **options)

        return noting


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    model_folder(tmp_path, "outside")
    settings = scripted_settings(tmp_path / "models", "m", models_dir=tmp_path / "own")
    container = Container(settings=settings)
    container.source.override(FakeSource())
    with live_server(container) as server:
        yield server


def requests(client: httpx.Client, model: str) -> Iterator[httpx.Response]:
    message = {"messages": [{"role": "user", "content": "hi"}]}
    for path, more in (
        ("/v1/chat/completions", message),
        ("/v1/completions", {"prompt": "hi"}),
        ("/api/v1/models/load", {}),
        ("/api/v1/models/unload", {"force": True}),
        ("/api/v1/models/pin", {"pinned": True}),
        ("/api/v1/estimate", {}),
    ):
        yield client.post(path, json={"model": model} | more)
    if not model.strip("./ ") or model == "/m":  # slashes too many and dots only clean a path
        return
    for path in ("/v1/models", "/api/v1/models"):
        quoted = model.replace("\0", "%00").replace("\n", "%0A").replace("\\", "%5C")
        yield client.get(f"{path}/{quoted}")
        yield client.get(f"{path}/{quoted.replace('/', '%2F')}")
    yield client.delete(f"/api/v1/models/{quoted.replace('/', '%2F')}")


def test_no_id_is_ever_a_path(
    server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [str(tmp_path / "outside") if text == "OUTSIDE" else text for text in IDS]
    with httpx.Client(base_url=server.url, timeout=20) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "m"
        spy = Spy(monkeypatch)
        answers = [(text, answer) for text in ids for answer in requests(client, text)]
    for text, answer in answers:
        assert answer.status_code in (400, 404), (text[:80], answer.text)
        assert error_of(answer)["message"]
        assert len(answer.text) < 1000
    forbidden = (str(tmp_path / "outside"), "/etc/passwd", "outside")
    assert not [path for path in spy.seen if path.endswith(forbidden) or ".." in path]
    assert (tmp_path / "outside" / "model.safetensors").is_file()
    assert server.snapshot.residents == ()


def test_the_spy_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    (tmp_path / "a").exists()
    (tmp_path / "b").is_symlink()
    list(tmp_path.iterdir())
    list(tmp_path.glob("*"))
    with pytest.raises(FileNotFoundError):
        (tmp_path / "c").read_text()
    assert {str(tmp_path / name) for name in ("a", "b", "c")} | {str(tmp_path)} <= set(spy.seen)


@pytest.mark.parametrize(
    "revision", ["../x", "/etc/passwd", "a b", "-x", "x" * 10_000, "a\0", ".."]
)
def test_a_revision_or_a_job_is_no_path(server: LiveServer, revision: str) -> None:
    body = {"model": "org/m", "revision": revision}
    with httpx.Client(base_url=server.url, timeout=20) as client:
        started = client.post("/api/v1/pulls", json=body)
        if started.status_code == 202:  # the hub's adapter refuses it (test_source.py)
            assert started.json()["state"] in ("running", "failed", "done")
        else:
            assert started.status_code == 400
        job = client.get(
            f"/api/v1/pulls/{revision[:80].replace(chr(0), '%00').replace('/', '%2F')}x"
        )
        assert job.status_code == 404
