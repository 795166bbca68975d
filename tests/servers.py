"""A live server on a loopback socket, in a thread of the test process."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from adapters.cli.serve import application
from adapters.container import Container
from adapters.settings import Settings
from application.pool_state import PoolSnapshot


@dataclass(frozen=True)
class LiveServer:
    url: str  # without /v1
    container: Container

    @property
    def snapshot(self) -> PoolSnapshot:
        return self.container.models().snapshot()


@contextmanager
def live_server(container: Container) -> Iterator[LiveServer]:
    config = uvicorn.Config(application(container), port=0, log_level="warning", http="h11")
    started = threading.Event()

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup()
            started.set()

    server = Announcing(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(20)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield LiveServer(f"http://127.0.0.1:{port}", container)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def model_folder(root: Path, name: str, *, context: int = 512, size: int = 1000) -> Path:
    """What the catalog takes for a model; only a scripted engine can load it."""
    folder = root / name
    folder.mkdir(parents=True)
    config = {"model_type": "scripted", "max_position_embeddings": context}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(size))
    return folder


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
