"""Downloads under way, a file each, so that the next server goes on with them.

    .locks/portico-pulls/<any name>.json

Beside the locks of the library, which lists other folders of the cache as broken models.
"""

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import constants
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.settings import ModelName
from application.ports import PullOrder
from domain.models import ModelId

logger = logging.getLogger("portico.pulls")

_WRITTEN = ".json"
_UNFINISHED = ".tmp"
_LARGEST = 10_000  # bytes
_ABANDONED = 3600.0  # seconds, for a file that nobody finishes


class _Entry(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(pattern=r"^[1-9][0-9]{0,8}\z")
    model: ModelName
    revision: str | None = Field(max_length=200)
    restarts: int = Field(ge=0)


class FilePullJournal:
    """A server holds a lock on each of its files for as long as it lives, so that no other takes
    its downloads for abandoned. What can't be written is logged; the download goes on without.

    cache: the hub's; None is where huggingface_hub has it. claims: whether this server goes on
    with what others left.
    """

    def __init__(self, cache: Path | None = None, *, claims: bool = True) -> None:
        home = (cache or Path(constants.HF_HUB_CACHE)).expanduser()
        self._folder = home / ".locks" / "portico-pulls"
        self._claims = claims
        self._held: dict[str, tuple[Path, int]] = {}  # by job: its file, open and locked

    def claim(self) -> tuple[PullOrder, ...]:
        if not self._claims:
            return ()
        orders = []
        for file, descriptor in self._left_by_others():
            order = _read(file, descriptor)
            if order is None or order.id in self._held:
                _discard(file, descriptor)
            if order is None:
                continue
            if order.id in self._held:  # two servers counted alike
                order = PullOrder(self._free_id(), order.model, order.revision, order.restarts)
                self.write(order)
            else:
                self._held[order.id] = file, descriptor
            orders.append(order)
        return tuple(sorted(orders, key=lambda order: int(order.id)))

    def write(self, order: PullOrder) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            old = self._held.get(order.id)
            file = old[0] if old else self._folder / f"{uuid.uuid4().hex}{_WRITTEN}"
            self._held[order.id] = file, _replace(file, order)
            if old:
                os.close(old[1])
        except OSError as error:
            logger.warning("A restart would not go on with download %s: %r", order.id, error)

    def erase(self, job: str) -> None:
        if job in self._held:
            _discard(*self._held.pop(job))

    def close(self) -> None:
        for _, descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _left_by_others(self) -> Iterator[tuple[Path, int]]:
        """Locked, with the descriptors that hold the locks."""
        try:
            files = sorted(self._folder.iterdir())
        except OSError:
            return
        for file in files:
            if file.suffix == _UNFINISHED:
                _sweep(file)
            elif file.suffix == _WRITTEN and (descriptor := _locked(file)) is not None:
                yield file, descriptor

    def _free_id(self) -> str:
        return str(max(int(job) for job in self._held) + 1)


def _read(file: Path, descriptor: int) -> PullOrder | None:
    """None for what is no entry."""
    try:
        entry = _Entry.model_validate_json(os.pread(descriptor, _LARGEST, 0))
    except (OSError, ValidationError) as error:
        fault = error if isinstance(error, OSError) else "it is damaged"
        logger.warning("%s is discarded, and its download not gone on with: %s", file, fault)
        return None
    return PullOrder(entry.id, ModelId.parse(entry.model), entry.revision, entry.restarts)


def _replace(file: Path, order: PullOrder) -> int:
    """Whole or not at all, and locked before it has its name. Raises OSError."""
    entry = _Entry(**asdict(order) | {"model": str(order.model)})
    draft = file.with_name(f"{uuid.uuid4().hex}{_UNFINISHED}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, entry.model_dump_json().encode())
        os.fsync(descriptor)
        draft.replace(file)
    except OSError:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
        raise
    return descriptor


def _locked(file: Path) -> int | None:
    """An open descriptor; None while another server lives that has it."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), file.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _discard(file: Path, descriptor: int) -> None:
    with suppress(OSError):
        file.unlink()
    os.close(descriptor)


def _sweep(draft: Path) -> None:
    with suppress(OSError):
        if time.time() - draft.stat().st_mtime > _ABANDONED:
            draft.unlink()
