"""What the tests of the hub share: a model's files, and a source that is in a hurry."""

import hashlib
import json
import random
from contextlib import aclosing
from pathlib import Path

from adapters.huggingface.catalog import HuggingFaceCatalog
from adapters.huggingface.source import HubOptions, HuggingFaceSource
from domain.models import ModelId, PullProgress
from tests.servers import safetensors
from tests.stub_hub import StubHub

MODEL = ModelId.parse("org/model")
CONFIG = b'{"model_type": "x", "max_position_embeddings": 64}'


def files(size: int = 200_000, seed: int = 1) -> dict[str, bytes]:
    """A model in two shards with an index, of incompressible bytes."""
    noise = random.Random(seed)  # noqa: S311 - only has to differ
    head = len(safetensors(size)) - size
    shards = {
        f"model-0000{n}-of-00002.safetensors": safetensors(size)[:head] + noise.randbytes(size)
        for n in (1, 2)
    }
    index = {"weight_map": {str(n): name for n, name in enumerate(shards)}}
    return {
        **shards,
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": CONFIG,
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"version": %d}' % seed,
        "tokenizer_config.json": b"{ }",
        "README.md": b"# A model",
    }


def needed(all_files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in all_files.items() if name != "README.md"}


def a_source(hub: StubHub, cache: Path, **options: object) -> HuggingFaceSource:
    hurried = {"stall_timeout": 0.5, "backoff": 0.01, "endpoint": hub.url, "cache_dir": cache}
    return HuggingFaceSource(HubOptions(**hurried | options))  # type: ignore[arg-type]


async def pull(
    source: HuggingFaceSource, model: ModelId = MODEL, revision: str | None = None
) -> list[PullProgress]:
    async with aclosing(source.pull(model, revision)) as progresses:
        return [progress async for progress in progresses]


async def listed(cache: Path) -> dict[str, str]:
    """The revision of each model that the catalog would offer."""
    cards = await HuggingFaceCatalog((), {}, cache).all()
    return {str(card.id): card.revision for card in cards}


def snapshot(cache: Path, commit: str, model: ModelId = MODEL) -> dict[str, bytes]:
    folder = cache / f"models--{str(model).replace('/', '--')}" / "snapshots" / commit
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def partials(cache: Path) -> dict[str, int]:
    """The unfinished files, by digest."""
    found = cache.glob("models--*/blobs/*.incomplete")
    return {path.name.removesuffix(".incomplete"): path.stat().st_size for path in found}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def leads_out(folder: Path) -> list[Path]:
    """What in it resolves to a place outside."""
    inside = folder.resolve()
    return [path for path in folder.rglob("*") if inside not in path.resolve().parents]
