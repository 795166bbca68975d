"""The models on this machine: the Hugging Face cache and configured folders. No network."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CachedRepoInfo, CacheNotFound, scan_cache_dir

from domain.errors import InvalidRequest, ModelNotFound
from domain.models import ModelCard, ModelId

logger = logging.getLogger("portico.catalog")

# Where the architectures of the field keep the length of their context.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_UNSTATED_CONTEXT = 8192  # for the few (recurrent ones) that state none

# What files that are not what they should be lead to.
_MALFORMED = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)

_FRESH_FOR = 1.0  # seconds during which a scan is not repeated


class HuggingFaceCatalog:
    """Scans at first use, and again when asked for the list or for a model it has not seen.

    offered: hub ids and folders; a folder is a model, or holds models one or two levels down
    (`name`, `owner/name`). Empty: all of the cache. built_in: models that come with Portico,
    offered when nothing else is configured, or when named. cache_dir: the hub's cache; None is
    where huggingface_hub has it (HF_HOME and its kind).
    """

    def __init__(
        self,
        offered: tuple[str, ...],
        built_in: Mapping[str, Path],
        cache_dir: Path | None = None,
    ) -> None:
        self._cache_dir = cache_dir
        self._offered = offered
        self._built_in = built_in
        self._cards: dict[ModelId, ModelCard] = {}
        self._scanned_at = -_FRESH_FOR
        self._scanning = asyncio.Lock()

    async def all(self) -> tuple[ModelCard, ...]:
        await self._refresh()
        return tuple(self._cards.values())

    async def find(self, model: ModelId) -> ModelCard:
        """Raises ModelNotFound."""
        if model not in self._cards:
            await self._refresh()
        if model not in self._cards:
            raise ModelNotFound(str(model))
        return self._cards[model]

    async def _refresh(self) -> None:
        async with self._scanning:
            if time.monotonic() - self._scanned_at >= _FRESH_FOR:
                cards = await asyncio.to_thread(lambda: list(self._scan()))
                self._cards = {card.id: card for card in cards}
                self._scanned_at = time.monotonic()

    def _scan(self) -> Iterator[ModelCard]:
        cached = list(_cached_cards(self._cache_dir))
        if not self._offered:
            yield from cached
        for reference in self._offered or tuple(self._built_in):
            folder = Path(reference).expanduser()
            if reference in self._built_in:
                yield from _card(reference, "", self._built_in[reference])
            elif folder.is_dir():
                yield from _folder_cards(folder)
            else:
                yield from (card for card in cached if str(card.id) == reference)


def _cached_cards(cache_dir: Path | None) -> Iterator[ModelCard]:
    try:
        repos = scan_cache_dir(cache_dir).repos
    except CacheNotFound:
        return
    except (OSError, ValueError) as error:
        logger.warning("The Hugging Face cache can't be read: %s", error)
        return
    for repo in repos:
        if repo.repo_type == "model":
            yield from _repo_card(repo)


def _repo_card(repo: CachedRepoInfo) -> Iterator[ModelCard]:
    """The revision that `main` points at, else the newest one."""
    newest = sorted(repo.revisions, key=lambda r: r.last_modified, reverse=True)
    for revision in [*(r for r in newest if "main" in r.refs), *newest][:1]:
        yield from _card(repo.repo_id, revision.commit_hash, revision.snapshot_path)


def _folder_cards(folder: Path) -> Iterator[ModelCard]:
    if (folder / "config.json").is_file():
        yield from _card(folder.resolve().name, "", folder)
        return
    for config in sorted([*folder.glob("*/config.json"), *folder.glob("*/*/config.json")]):
        yield from _card(config.parent.relative_to(folder).as_posix(), "", config.parent)


def _card(name: str, revision: str, location: Path) -> Iterator[ModelCard]:
    """Nothing for a folder that is not a whole model in safetensors form."""
    try:
        config = json.loads((location / "config.json").read_text("utf-8"))
        weights = _weight_files(location)
        if not weights or not isinstance(config, dict) or "model_type" not in config:
            return
        yield ModelCard(
            ModelId.parse(name),
            revision,
            location,
            sum(file.stat().st_size for file in weights),
            _context_length(config),
            int((location / "config.json").stat().st_mtime),
        )
    except (*_MALFORMED, InvalidRequest) as error:
        logger.warning("%s is left out: %r", location, error)


def _weight_files(location: Path) -> list[Path]:
    """Empty while a shard of the index is missing."""
    index = location / "model.safetensors.index.json"
    if not index.is_file():
        return list(location.glob("model*.safetensors"))
    shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    files = [location / shard for shard in shards]
    return files if all(file.is_file() for file in files) else []


def _context_length(config: dict[str, Any]) -> int:
    text = config.get("text_config")  # where models of several senses keep their language part
    for source in (config, text if isinstance(text, dict) else {}):
        for key in _CONTEXT_KEYS:
            length = source.get(key)
            if isinstance(length, int) and length > 0:
                return length
    return _UNSTATED_CONTEXT
