"""What is looked at before a model's files are trusted, and before its caches are batched."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlx_lm.models.cache import CacheList
from safetensors import SafetensorError, safe_open

from domain.errors import ModelUnusable


def check(folder: Path) -> None:
    """Raises ModelUnusable for what would run code, others' files, and damaged weights."""
    _refuse_links_out(folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    if "model_file" in config:
        raise ModelUnusable(
            f"`{folder.name}` wants to run a program of its own (`model_file` in its config); "
            "Portico never runs code that comes with a model."
        )
    for file in folder.glob("*.safetensors"):
        try:
            # Checks the header against the file's size, which mlx's own loader trusts
            # (ml-explore/mlx#4213).
            with safe_open(file, framework="np"):
                pass
        except SafetensorError as error:
            raise ModelUnusable(f"`{file.name}` is damaged: {error}") from error


def _refuse_links_out(folder: Path) -> None:
    """A folder from a stranger could name any file of this machine as its own."""
    homes = [folder.resolve(), *_blobs(folder)]
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink() and not any(path.resolve().is_relative_to(h) for h in homes):
                raise ModelUnusable(
                    f"`{folder.name}` has a link that leads out of it (`{path.name}`); Portico "
                    "reads only a model's own files. Put the file there in place of the link."
                )


def _blobs(folder: Path) -> list[Path]:
    """Where the files of a snapshot in a Hugging Face cache are: the repository's own, and those
    that repositories share.
    """
    if folder.parent.name != "snapshots":
        return []
    repo = folder.parents[1]
    return [(home / "blobs").resolve() for home in (repo, repo.parent)]


def leaves(caches: Iterable[Any]) -> list[Any]:
    """The caches, with those inside a CacheList in its place."""
    flat: list[Any] = []
    for cache in caches:
        flat += leaves(cache.caches) if isinstance(cache, CacheList) else [cache]
    return flat


def require_batching(caches: Iterable[Any]) -> None:
    """Raises ModelUnusable when mlx-lm has no batched kind of one of the caches."""
    unbatched = {type(cache).__name__ for cache in leaves(caches) if not hasattr(cache, "merge")}
    if unbatched:
        raise ModelUnusable(
            f"mlx-lm can't batch the {', '.join(sorted(unbatched))} that this model's layers need."
        )
