"""A live server on a loopback socket, in a thread of the test process."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from adapters.cli.security import tls_options
from adapters.cli.serve import application, connection_limits
from adapters.container import Container
from adapters.http.server import server_config
from adapters.settings import Settings
from application.pool_state import PoolSnapshot
from tests.fakes import FakeJournal
from tests.threaded import ThreadedServer

_PATIENCE = 30  # ticks


@dataclass(frozen=True)
class LiveServer:
    url: str  # without /v1
    container: Container
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def tasks(self) -> int:
        return len(asyncio.all_tasks(self.loop))

    @property
    def is_free(self) -> bool:
        """Nothing is leased, runs or waits."""
        snapshot = self.snapshot
        places = sum(r.waiting + r.stats.running + r.stats.waiting for r in snapshot.residents)
        return snapshot.leases == snapshot.waiting == places == 0

    @property
    def snapshot(self) -> PoolSnapshot:
        return self.container.models().snapshot()


class WatchedServer(ThreadedServer):
    """Looks for what its pool must never be in, every tenth of a second."""

    def __init__(self, config: uvicorn.Config, container: Container) -> None:
        super().__init__(config)
        self.faults: list[str] = []
        self._container = container
        self._orphaned = 0  # ticks in a row

    async def on_tick(self, counter: int) -> bool:
        snapshot = self._container.models().snapshot()
        self.faults.extend(contradictions(snapshot))
        self._orphaned = self._orphaned + 1 if orphans(snapshot) else 0
        if self._orphaned > _PATIENCE:
            self.faults.extend(orphans(snapshot))
        return await super().on_tick(counter)


@contextmanager
def live_server(container: Container) -> Iterator[LiveServer]:
    """Over TLS, if the settings have a certificate."""
    if not container.journal.overridden:  # whoever runs the tests may have downloads of their own
        container.journal.override(FakeJournal())
    limits = connection_limits(container.settings())
    tls = tls_options(container.settings())
    config = server_config(
        application(container),
        "127.0.0.1",
        0,
        limits,
        container.request_seen(),
        log_level="warning",
        **tls,
    )
    server = WatchedServer(config, container)
    with server.running() as port:
        scheme = "https" if tls else "http"
        yield LiveServer(f"{scheme}://127.0.0.1:{port}", container, server.loop)
    assert not server.faults, server.faults


def contradictions(snapshot: PoolSnapshot) -> list[str]:
    """What can not be, whatever has happened."""
    faults = []
    if snapshot.memory_used > snapshot.memory_budget:
        faults.append(f"more memory than there is: {snapshot}")
    for resident in snapshot.residents:
        if resident.idle and resident.leases:
            faults.append(f"leased, and idle: {resident}")
    return faults


def orphans(snapshot: PoolSnapshot) -> list[str]:
    """Answers without a lease, which can be only until the engine hears that nobody reads them."""
    return [
        f"an answer without a lease: {resident}"
        for resident in snapshot.residents
        if resident.stats.running + resident.stats.waiting > resident.leases
    ]


def model_folder(root: Path, name: str, *, context: int = 512, size: int = 1000) -> Path:
    """What the catalog takes for a model; only a scripted engine can load it."""
    folder = root / name
    folder.mkdir(parents=True)
    config = {"model_type": "scripted", "max_position_embeddings": context}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(size))
    return folder


def cached_model(cache: Path, name: str, commit: str = "a" * 40, *, main: bool = True) -> Path:
    """A model in a Hugging Face cache. main: whether its `main` names this commit."""
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "blobs").mkdir(parents=True, exist_ok=True)
    (repo / "refs").mkdir(exist_ok=True)
    if main:
        (repo / "refs" / "main").write_text(commit)
    return model_folder(repo / "snapshots", commit)


def safetensors(size: int) -> bytes:
    """A weights file with one tensor of that many bytes."""
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * size


def scripted_settings(root: Path, *names: str, **settings: object) -> Settings:
    """Settings for the scripted backend with these models."""
    for name in names:
        model_folder(root, name)
    return Settings(backend="scripted", available_models=(str(root),), **settings)  # type: ignore[arg-type]
