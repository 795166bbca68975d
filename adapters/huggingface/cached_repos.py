"""The repositories in a Hugging Face cache: what they hold, what they cost, how they go.

Not read with scan_cache_dir: it drops a repository with one broken link or reference whole, and
does not know those of which only unfinished files are here.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import huggingface_hub  # its names are imported when they are used

from domain.errors import InvalidRequest
from domain.models import ModelCard, ModelId

_PREFIX = "models--"
_MAIN = Path("refs", "main")


@dataclass(frozen=True, slots=True)
class Snapshot:
    commit: str
    location: Path


@dataclass(frozen=True, slots=True)
class CachedRepo:
    id: ModelId
    folder: Path

    def snapshots(self) -> list[Snapshot]:
        """The one that `main` points at, then the newest."""
        main = _read(self.folder / _MAIN)
        folders = [path for path in _entries(self.folder / "snapshots") if path.is_dir()]
        folders.sort(key=lambda path: (path.name == main, path.stat().st_mtime), reverse=True)
        return [Snapshot(path.name, path) for path in folders]

    def size(self) -> int:
        """Bytes, with unfinished files. What is shared with other repositories counts for each."""
        return sum(entry.st_size for entry in self._files())

    def last_used(self) -> float:
        """Unix seconds."""
        return max((entry.st_atime for entry in self._files()), default=0.0)

    def _files(self) -> Iterator[os.stat_result]:
        for path in self.folder.rglob("*"):
            try:
                shared = path.is_symlink() and path.parent.name == "blobs"
                entry = path.stat() if shared else path.lstat()
            except OSError:
                continue  # gone meanwhile, or a broken link
            if stat.S_ISREG(entry.st_mode):
                yield entry


def cached_repos(cache: Path) -> list[CachedRepo]:
    found = []
    for folder in sorted(_entries(cache)):
        name = folder.name.removeprefix(_PREFIX)
        if name == folder.name or not os.path.isdir(folder):
            continue
        try:
            found.append(CachedRepo(ModelId.parse(name.replace("--", "/")), folder))
        except InvalidRequest:
            continue  # nobody could ask for it
    return found


def superseded(card: ModelCard) -> bool:
    """Whether `main` names another revision than that of a card from the cache."""
    if not card.revision:
        return False
    return _read(card.location.parents[1] / _MAIN) not in {"", card.revision}


def delete(repo: CachedRepo, cache: Path) -> int:
    """Its revisions and unfinished files; the bytes that were freed. Links are not followed.

    Raises OSError.
    """
    before = _occupied(repo, cache)
    _delete_revisions(repo, cache)
    if repo.folder.exists():
        shutil.rmtree(repo.folder)
    return before - _occupied(repo, cache)


def _delete_revisions(repo: CachedRepo, cache: Path) -> None:
    """The library's way, which knows what of the files shared by repositories nobody needs."""
    try:
        info = huggingface_hub.scan_cache_dir(cache)
    except (huggingface_hub.CacheNotFound, OSError, ValueError):
        return
    for known in info.repos:
        if known.repo_path.name == repo.folder.name:
            # Alone: the library would take commits of the same name from other repositories too.
            alone = replace(info, repos=frozenset({known}))
            alone.delete_revisions(*(r.commit_hash for r in known.revisions)).execute()


def _occupied(repo: CachedRepo, cache: Path) -> int:
    """Bytes of the repository and of the library's store of shared files."""
    files = [*repo.folder.rglob("*"), *(cache / "blobs").rglob("*")]
    entries = [path.lstat() for path in files]
    return sum(entry.st_size for entry in entries if stat.S_ISREG(entry.st_mode))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeError):
        return ""
