"""States of one model on disk: within a budget, across restarts, a miss rather than a fault."""

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import shutil
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from adapters.mlx.prefix_file import Damaged, Draft, Label, read_label, read_snapshot
from adapters.mlx.snapshot import Snapshot
from domain.prefixes import Entry, Match, Prefixes
from domain.token_trie import pack

logger = logging.getLogger("portico.prefixes")

_SALT_BYTES = 32
_UNFINISHED = ".tmp"
_FINISHED = ".safetensors"

Stored = Entry[Path]


class PrefixStore:
    """A folder for each fingerprint, in one for each model; a file for each state.

    Scopes are hashed with a salt of the folder, so that the name of a key can't be read there.
    Only one process uses a model's folder, by a lock that ends with it: all that is there and
    isn't known to this one is of the past.
    """

    def __init__(
        self, root: Path, model: str, fingerprint: str, layout: list[Any], budget_bytes: int
    ) -> None:
        """Raises OSError. layout: what `snapshot.layout` says of the network's caches."""
        home = root / hashlib.sha256(model.encode()).hexdigest()[:32]
        self._folder = home / fingerprint
        self._fingerprint = fingerprint
        self._layout = layout
        self._stored: Prefixes[Path] = Prefixes(budget_bytes)
        self._writable = True
        for folder in (root, home, self._folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(home / "lock")
        try:
            _remove_others(home, self._folder)
            self._salt = _salt(self._folder)
            self._read_folder()
        except OSError:
            self._lock.close()
            raise

    @property
    def bytes_held(self) -> int:
        return self._stored.bytes_held

    def __len__(self) -> int:
        return len(self._stored)

    def find(self, scope: str, tokens: Sequence[int]) -> Match[Path] | None:
        """No file is read, but what is found counts as used: memory may have it, too."""
        found = self._stored.find(self._hashed(scope), tokens)
        if found is not None and self._stored.used(found):
            with contextlib.suppress(OSError):
                os.utime(found.entry.value)
        return found

    def read(self, stored: Stored) -> Snapshot | None:
        """None for a file that is not, or not any longer, what was written; it is deleted."""
        label = Label(self._fingerprint, stored.scope, stored.packed, stored.trimmable)
        try:
            snapshot = read_snapshot(stored.value, label)
            if [layer.layout for layer in snapshot.layers] == self._layout:
                return snapshot
        except (Damaged, OSError) as error:
            logger.warning("A kept prompt on disk is dropped: %r", error)
        self._stored.drop(stored)
        _delete([stored])
        return None

    def save(
        self, scope: str, tokens: Sequence[int], snapshot: Snapshot
    ) -> Generator[None, None, None]:
        """Writes a piece at each step. A file is there once it is whole; closed, none is."""
        label = Label(self._fingerprint, self._hashed(scope), pack(tokens), snapshot.trimmable)
        if not self._writable or self._stored.covering(label.scope, tokens):
            return
        try:
            draft = Draft(label, snapshot)
        except ValueError:
            return
        if draft.size > self._stored.budget:
            return
        _delete(self._stored.shrink(self._stored.budget - draft.size))
        unfinished = self._folder / f"{secrets.token_hex(16)}{_UNFINISHED}"
        finished = unfinished.with_suffix(_FINISHED)
        try:
            yield from draft.write(unfinished)
            os.replace(unfinished, finished)
            self._add(label, finished, draft.size)
        except OSError as error:
            self._writable = False
            logger.warning("No more prompts are kept on disk, until a restart: %r", error)
        finally:
            _unlink(unfinished)

    def clear(self) -> None:
        _delete(self._stored.shrink(0))

    def close(self) -> None:
        """Another store may open the folder then."""
        self._lock.close()

    def _add(self, label: Label, file: Path, size: int) -> None:
        entry = Entry(label.scope, label.packed, label.trimmable, size, file)
        _delete(self._stored.add(entry))

    def _hashed(self, scope: str) -> str:
        return hmac.digest(self._salt, scope.encode(errors="surrogatepass"), "sha256").hex()

    def _read_folder(self) -> None:
        """All that can't be of use is deleted."""
        found = []
        for file in self._folder.iterdir():
            if file.suffix == _UNFINISHED:
                _unlink(file)
            elif file.suffix == _FINISHED and (label := self._label(file)):
                found.append((file.stat(), label, file))
            elif file.suffix == _FINISHED:
                _unlink(file)
        for stat, label, file in sorted(found, key=lambda one: one[0].st_mtime_ns):
            if stat.st_size <= self._stored.budget:
                self._add(label, file, stat.st_size)
            else:
                _unlink(file)

    def _label(self, file: Path) -> Label | None:
        try:
            label = read_label(file)
        except (Damaged, OSError) as error:
            logger.warning("A kept prompt on disk is dropped: %r", error)
            return None
        return label if label.fingerprint == self._fingerprint else None


def _delete(stored: Iterable[Stored]) -> None:
    for entry in stored:
        _unlink(entry.value)


def _unlink(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


def _locked(file: Path) -> IO[bytes]:
    """Raises OSError where another process, or another store of this one, has the lock."""
    opened = open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        opened.close()
        raise
    return opened


def _remove_others(home: Path, folder: Path) -> None:
    """States of other weights under the same name are of no use any more."""
    for other in home.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other, ignore_errors=True)


def _salt(folder: Path) -> bytes:
    """Made anew if it is lost; the scopes of the files that are there are unknown then."""
    file = folder / "salt"
    with contextlib.suppress(FileNotFoundError):
        salt = file.read_bytes()
        if len(salt) == _SALT_BYTES:
            return salt
    _unlink(file)
    for old in folder.glob(f"*{_FINISHED}"):
        _unlink(old)
    salt = secrets.token_bytes(_SALT_BYTES)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as made:
        made.write(salt)
    return salt
