"""The models on this machine: the Hugging Face cache and folders. No network."""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants

from adapters.huggingface.cached_repos import CachedRepo, cached_repos, delete, superseded
from adapters.huggingface.manifest import CONFIG
from adapters.huggingface.model_folder import CardReader
from domain.errors import InvalidRequest, ModelNotFound
from domain.models import CachedModel, DiskUse, ModelCard, ModelId

logger = logging.getLogger("portico.catalog")

_FRESH_FOR = 1.0  # seconds during which a scan is not repeated


class HuggingFaceCatalog:
    """Scans at first use, and again when asked for the list, or for a model that it has not seen
    or that has changed.

    offered: hub ids and folders; a folder is a model, or holds models one or two levels down
    (`name`, `owner/name`). Empty: all of the cache. built_in: models that come with Portico,
    offered when nothing else is configured, or when named. cache_dir: the hub's cache; None is
    where huggingface_hub has it (HF_HOME and its kind). models_dir: the user's own models, always
    offered. Of two models with the same id the one from the earlier place in this order is taken.
    """

    def __init__(
        self,
        offered: tuple[str, ...],
        built_in: Mapping[str, Path],
        cache_dir: Path | None = None,
        models_dir: Path | None = None,
    ) -> None:
        self._cache = (cache_dir or Path(constants.HF_HUB_CACHE)).expanduser()
        self._models_dir = models_dir.expanduser() if models_dir else None
        self._offered = offered
        self._built_in = built_in
        self._reader = CardReader()
        self._cards: dict[ModelId, ModelCard] = {}
        self._warned: set[str] = set()
        self._scanned_at = -_FRESH_FOR
        self._changes = 0  # that were announced, and how many of them the last scan has seen
        self._changes_seen = 0
        self._scanning = asyncio.Lock()

    async def all(self) -> tuple[ModelCard, ...]:
        await self._refresh()
        return tuple(self._cards.values())

    async def find(self, model: ModelId) -> ModelCard:
        """Raises ModelNotFound."""
        if self._changes != self._changes_seen or not self._is_current(model):
            await self._refresh()
        if not self._has(model):
            raise ModelNotFound(str(model))
        return self._cards[model]

    async def remove(self, model: ModelId) -> int:
        """Delete it from the cache or from models_dir; the bytes that were freed.

        Raises ModelNotFound, and InvalidRequest for models that are elsewhere.
        """
        self.invalidate()
        await self._refresh()
        try:
            return await asyncio.to_thread(self._remove, model)
        finally:
            self.invalidate()
            await self._refresh()

    async def disk_use(self) -> DiskUse:
        return await asyncio.to_thread(self._disk_use)

    def invalidate(self) -> None:
        """The files have changed: the next look is a new scan."""
        self._changes += 1

    def _is_current(self, model: ModelId) -> bool:
        """False also for a model of which somebody else has pulled another revision since."""
        return self._has(model) and not superseded(self._cards[model])

    def _has(self, model: ModelId) -> bool:
        """False also for a model that was deleted by somebody else since the scan."""
        card = self._cards.get(model)
        return card is not None and os.path.isfile(card.location / CONFIG)

    async def _refresh(self) -> None:
        async with self._scanning:
            started, changes = time.monotonic(), self._changes
            fresh = started - self._scanned_at < _FRESH_FOR
            if not fresh or changes != self._changes_seen:
                self._cards = await asyncio.to_thread(self._scan)
                # As of the start: an invalidate during the scan asks for another.
                self._scanned_at, self._changes_seen = started, changes

    def _scan(self) -> dict[ModelId, ModelCard]:
        cards: dict[ModelId, ModelCard] = {}
        for card in [*self._offered_cards(), *self._own_cards()]:
            first = cards.setdefault(card.id, card)
            if first.location.resolve() != card.location.resolve():
                self._warn_once(
                    f"{card.location} is left out: {first.location} is called {card.id} as well."
                )
        return cards

    def _offered_cards(self) -> Iterator[ModelCard]:
        cached = [card for repo in cached_repos(self._cache) for card in self._repo_card(repo)]
        if not self._offered:
            yield from cached
        for reference in self._offered or tuple(self._built_in):
            yield from self._referenced(reference, cached)

    def _referenced(self, reference: str, cached: list[ModelCard]) -> Iterator[ModelCard]:
        with self._told(reference):
            folder = Path(reference).expanduser()
            if reference in self._built_in:
                found = self._cards_at([(reference, self._built_in[reference])])
            elif folder.is_dir():
                found = self._folder_cards(folder)
            else:
                own = [card for card in self._own_cards() if str(card.id) == reference]
                found = [card for card in cached if str(card.id) == reference] or own
            if not found:
                self._warn_once(
                    f"No model was found for {reference}, which is configured: it is neither a "
                    "whole model in the cache nor a folder with one."
                )
            yield from found

    def _repo_card(self, repo: CachedRepo) -> list[ModelCard]:
        """The revision that `main` points at, else the newest; of those that are whole."""
        with self._told(repo.folder):
            for snapshot in repo.snapshots():
                card = self._reader.card(str(repo.id), snapshot.commit, snapshot.location)
                if card:
                    return [card]
        return []

    def _own_cards(self) -> list[ModelCard]:
        if self._models_dir:
            with self._told(self._models_dir):
                return self._cards_at(_below(self._models_dir))
        return []

    def _folder_cards(self, folder: Path) -> list[ModelCard]:
        if (folder / CONFIG).is_file():
            return self._cards_at([(folder.resolve().name, folder)])
        return self._cards_at(_below(folder))

    def _cards_at(self, places: list[tuple[str, Path]]) -> list[ModelCard]:
        cards = [self._reader.card(name, "", location) for name, location in places]
        return [card for card in cards if card]

    @contextmanager
    def _told(self, place: str | Path) -> Iterator[None]:
        """What can't be read is left out, and takes nobody with it."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # RuntimeError: the home of nobody we know
            self._warn_once(f"{place} is left out: {error!r}")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning("%s", message)

    def _remove(self, model: ModelId) -> int:
        card = self._cards.get(model)
        if card and self._models_dir and _is_below(self._models_dir, card.location):
            return _delete_folder(card.location, self._models_dir)
        if card and not _is_below(self._cache, card.location):
            raise InvalidRequest(
                f"`{model}` is in {card.location}, a folder that was configured or comes with "
                "Portico. Only downloaded and converted models are deleted.",
                "model",
            )
        for repo in cached_repos(self._cache):
            if repo.id == model:
                _refuse_link(repo.folder)
                return delete(repo, self._cache)
        raise ModelNotFound(str(model))

    def _disk_use(self) -> DiskUse:
        models = tuple(
            CachedModel(repo.id, repo.size(), repo.last_used(), bool(self._repo_card(repo)))
            for repo in cached_repos(self._cache)
        )
        existing = next(
            path for path in (self._cache, *self._cache.absolute().parents) if path.exists()
        )
        return DiskUse(self._cache, shutil.disk_usage(existing).free, models)


def _below(folder: Path) -> list[tuple[str, Path]]:
    """The models in a folder, one or two levels down, with their names."""
    configs = sorted([*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")])
    return [(path.parent.relative_to(folder).as_posix(), path.parent) for path in configs]


def _is_below(folder: Path, location: Path) -> bool:
    """By name: links in between are not followed."""
    return folder.absolute() in location.absolute().parents


def _delete_folder(location: Path, models_dir: Path) -> int:
    """The bytes that were freed. Raises InvalidRequest for a link."""
    _refuse_link(location)
    if location.parent != models_dir:
        _refuse_link(location.parent)
    files = [path.lstat() for path in location.rglob("*") if path.is_file()]
    shutil.rmtree(location)
    if location.parent != models_dir and not any(location.parent.iterdir()):
        location.parent.rmdir()
    return sum(file.st_size for file in files)


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise InvalidRequest(
            f"{folder} is a link to {folder.resolve()}. Delete the link or that folder yourself.",
            "model",
        )
