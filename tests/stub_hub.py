"""A model hub on a loopback socket: enough of its HTTP API for huggingface_hub's own client.

Tests fill it with repositories and tell it how to misbehave. By hand, with folders of models:

    python -m tests.stub_hub --port 8899 path/to/owner/name ...
    HF_ENDPOINT=http://127.0.0.1:8899 portico search name
"""

import argparse
import asyncio
import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

from tests.threaded import ThreadedServer

_LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".npz", ".npy", ".pkl", ".onnx")
_CHUNK = 16 << 10


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_lfs(name: str) -> bool:
    return name.endswith(_LFS_SUFFIXES)


@dataclass
class Repo:
    """revisions: commits by branch or tag. gated: until a request has this token."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    gated: str | None = None
    private: bool = False
    downloads: int = 0
    likes: int = 0
    tags: list[str] = field(default_factory=lambda: ["mlx"])
    config: dict[str, Any] | None = None
    parameters: dict[str, int] | None = None

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit at the head of a branch."""
        seed = json.dumps({name: git_id(content) for name, content in files.items()})
        commit = git_id(f"{len(self.commits)}{seed}".encode())
        self.commits[commit] = dict(files)
        self.revisions[branch] = commit
        return commit

    def find(self, revision: str) -> str | None:
        commit = self.revisions.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Fault:
    """What goes wrong with requests whose path has `path` in it; `times` of them, or all.

    corrupt: flips the last byte. *_at: a byte of the whole file. body: what is sent in its place.
    """

    path: str = ""
    times: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    corrupt: bool = False
    ignore_range: bool = False
    refuse_range: bool = False
    stall_at: int | None = None
    drop_at: int | None = None
    rate: int | None = None  # bytes a second
    hang: bool = False  # no answer at all
    body: bytes | None = None

    def take(self, path: str) -> bool:
        if self.path not in path or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    range: str | None
    token: str | None


class StubHub:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.tokens: set[str] | None = None  # None: any
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.info_override: dict[str, Any] = {}  # what is told of every model
        self.raw_answer: bytes | None = None  # what the API answers, whatever it is asked
        self.url = ""
        self.cdn = ""

    def add(self, name: str, files: dict[str, bytes], **facts: Any) -> Repo:
        repo = self.repos.setdefault(name, Repo(**facts))
        repo.commit(files)
        return repo

    def add_folder(self, name: str, folder: Path, **facts: Any) -> Repo:
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        told = {"parameters": _parameters(files), "config": json.loads(files["config.json"])}
        return self.add(name, files, **(told | facts))

    def fetched(self, name: str) -> list[Seen]:
        """The requests for a file's content."""
        return [s for s in self.seen if s.path.endswith(f"/{name}") and "/resolve/" in s.path]

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def misbehave(request: Request, answer: Any) -> Response:
            self._note(request)
            fault = next((f for f in self.faults if f.take(request.url.path)), None)
            if fault and fault.hang:
                await asyncio.sleep(3600)
            if fault and fault.status:
                return _refuse(fault.status, "", headers=fault.headers)
            refusal = self._check_token(request)
            if refusal:
                return refusal
            request.state.fault = fault or Fault()
            response: Response = await answer(request)
            return response

        @app.get("/api/models")
        async def models(request: Request) -> JSONResponse:
            return self._list(request)

        @app.get("/api/models/{rest:path}")
        async def model(rest: str, request: Request) -> Response:
            if self.raw_answer is not None:
                return Response(self.raw_answer, media_type="application/json")
            return self._info(rest, request)

        @app.api_route("/cdn/{digest}/{name}", methods=["GET", "HEAD"])
        async def cdn(digest: str, name: str, request: Request) -> Response:
            files = (f for repo in self.repos.values() for f in repo.commits.values())
            content = next(c for f in files for c in f.values() if sha256(c) == digest)
            return _send(content, request)

        @app.api_route("/{rest:path}", methods=["GET", "HEAD"])
        async def resolve(rest: str, request: Request) -> Response:
            return self._resolve(rest, request)

        return app

    def _note(self, request: Request) -> None:
        ranged = request.headers.get("range")
        self.seen.append(Seen(request.method, request.url.path, ranged, _token(request)))

    def _check_token(self, request: Request) -> Response | None:
        token = _token(request)
        if token and self.tokens is not None and token not in self.tokens:
            return _refuse(401, "", "Invalid credentials in Authorization header")
        return None

    def _list(self, request: Request) -> JSONResponse:
        query = request.query_params
        wanted = set(query.getlist("filter"))
        found = [
            (name, repo)
            for name, repo in self.repos.items()
            if query.get("search", "").lower() in name.lower() and wanted <= set(repo.tags)
        ]
        if query.get("sort") == "downloads":
            found.sort(key=lambda entry: entry[1].downloads, reverse=True)
        expand = query.getlist("expand")
        limit = int(query.get("limit", 1000))
        return JSONResponse([_entry(name, repo, expand) for name, repo in found[:limit]])

    def _info(self, rest: str, request: Request) -> Response:
        name, _, revision = rest.partition("/revision/")
        if name in self.renamed:
            tail = f"/revision/{revision}" if revision else ""
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(f"/api/models/{self.renamed[name]}{tail}{query}", 307)
        repo = self._visible(name, request)
        if repo is None:
            return _no_repo(request)
        commit = repo.find(revision or "main")
        if commit is None:
            return _refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blobs = request.query_params.get("blobs", "").lower() == "true"
        siblings = [_sibling(n, c, blobs) for n, c in repo.commits[commit].items()]
        facts = _entry(name, repo, ["downloads", "likes", "lastModified", "gated", "tags"])
        return JSONResponse(facts | {"sha": commit, "siblings": siblings} | self.info_override)

    def _resolve(self, rest: str, request: Request) -> Response:
        name, _, tail = rest.partition("/resolve/")
        revision, _, file = tail.partition("/")
        if name in self.renamed:
            return RedirectResponse(f"/{self.renamed[name]}/resolve/{tail}", 307)
        repo = self._visible(name, request)
        if repo is None:
            return _no_repo(request)
        if repo.gated and _token(request) != repo.gated:
            status = 403 if _token(request) else 401
            return _refuse(status, "GatedRepo", f"Access to model {name} is restricted.")
        commit = repo.find(revision)
        if commit is None or file not in repo.commits[commit]:
            code = "EntryNotFound" if commit else "RevisionNotFound"
            return _refuse(404, code, f"Invalid rev id or entry: {revision} {file}")
        content = repo.commits[commit][file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_id(content)}"'}
        if not is_lfs(file):
            return _send(content, request, headers)
        headers |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        return RedirectResponse(f"{self.cdn}/cdn/{sha256(content)}/{file}", 302, headers)

    def _visible(self, name: str, request: Request) -> Repo | None:
        repo = self.repos.get(name)
        return None if repo and repo.private and not _token(request) else repo


def _no_repo(request: Request) -> Response:
    """As the hub does: without a token it does not tell what is private from what is missing."""
    if _token(request):
        return _refuse(404, "RepoNotFound", "Repository not found")
    return _refuse(401, "RepoNotFound", "Invalid username or password.")


def _token(request: Request) -> str | None:
    return request.headers.get("authorization", "").partition(" ")[2] or None


def _entry(name: str, repo: Repo, expand: list[str]) -> dict[str, Any]:
    facts = {
        "downloads": repo.downloads,
        "likes": repo.likes,
        "lastModified": "2026-01-02T03:04:05.000Z",
        "gated": "manual" if repo.gated else False,
        "tags": repo.tags,
        "config": repo.config,
        "safetensors": repo.parameters
        and {"parameters": repo.parameters, "total": sum(repo.parameters.values())},
    }
    told = {key: fact for key, fact in facts.items() if key in expand and fact is not None}
    return {"_id": "0", "id": name, "modelId": name, **told}


def _sibling(name: str, content: bytes, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": name}
    facts = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
    if not is_lfs(name):
        return facts
    lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
    return facts | {"lfs": lfs}


def _refuse(
    status: int, code: str, message: str = "", headers: dict[str, str] | None = None
) -> Response:
    told = {"X-Error-Code": code, "X-Error-Message": message} if code or message else {}
    return JSONResponse({"error": message}, status, headers=told | (headers or {}))


def _send(content: bytes, request: Request, headers: dict[str, str] | None = None) -> Response:
    fault: Fault = request.state.fault
    start = _start(request, fault)
    sent = content if fault.body is None else fault.body
    if fault.corrupt:
        sent = sent[:-1] + bytes([sent[-1] ^ 1])
    if start and (start >= len(sent) or fault.refuse_range):
        return _refuse(416, "", headers={"Content-Range": f"bytes */{len(sent)}"})
    told = {"Content-Length": str(len(sent) - start), "Accept-Ranges": "bytes", **(headers or {})}
    if start:
        told["Content-Range"] = f"bytes {start}-{len(sent) - 1}/{len(sent)}"
    body = b"" if request.method == "HEAD" else sent
    return StreamingResponse(_chunks(body, start, fault), 206 if start else 200, told)


def _start(request: Request, fault: Fault) -> int:
    ranged = request.headers.get("range")
    if not ranged or fault.ignore_range:
        return 0
    return int(ranged.removeprefix("bytes=").split("-")[0])


async def _chunks(content: bytes, start: int, fault: Fault) -> AsyncIterator[bytes]:
    at = start
    ends = [at for at in (fault.stall_at, fault.drop_at) if at is not None]
    end = min([len(content), *ends])
    step = max(min(_CHUNK, fault.rate // 20), 1) if fault.rate else _CHUNK
    while at < end:
        piece = content[at : min(at + step, end)]
        yield piece
        at += len(piece)
        if fault.rate:
            await asyncio.sleep(len(piece) / fault.rate)
    if fault.stall_at is not None and at >= fault.stall_at:
        await asyncio.sleep(3600)
    if fault.drop_at is not None and at >= fault.drop_at:
        raise ConnectionResetError("dropped, as told")


@contextmanager
def stub_hub(port: int = 0) -> Iterator[StubHub]:
    """A hub that runs until the block is left."""
    hub = StubHub()
    config = uvicorn.Config(
        hub.app(), port=port, log_level="critical", http="h11", lifespan="off", ws="none"
    )
    server = ThreadedServer(config)
    server.force_exit = True  # it waits for no answer that hangs, as told
    with server.running() as bound:
        hub.url = f"http://127.0.0.1:{bound}"
        hub.cdn = f"http://localhost:{bound}"  # another origin, as the hub's storage is
        yield hub


def _parameters(files: dict[str, bytes]) -> dict[str, int]:
    """How many there are of each type, as the hub reads it from the headers of safetensors."""
    counts: Counter[str] = Counter()
    for name, content in files.items():
        if name.endswith(".safetensors"):
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            for tensor, facts in header.items():
                if tensor != "__metadata__":
                    counts[facts["dtype"]] += math.prod(facts["shape"])
    return dict(counts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8899)
    parser.add_argument("--rate", type=int, help="bytes a second of every file")
    parser.add_argument("folders", nargs="+", type=Path)
    asked = parser.parse_args()
    with stub_hub(asked.port) as hub:
        for folder in asked.folders:
            name = f"{folder.resolve().parent.name}/{folder.resolve().name}"
            hub.add_folder(name, folder)
            print(name)
        if asked.rate:
            hub.faults.append(Fault(path="/resolve/", rate=asked.rate))
            hub.faults.append(Fault(path="/cdn/", rate=asked.rate))
        print(f"HF_ENDPOINT={hub.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
