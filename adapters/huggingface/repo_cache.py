"""One model's folder in the Hugging Face cache: blobs by digest, snapshots that link to them.

    models--owner--name/blobs/<digest>                a file, verified
                        blobs/<digest>.incomplete     what has come of one
                        snapshots/<commit>/<name>     a link to a blob
                        refs/<branch>                 the commit of a branch

The layout and the locks are the library's, so that other tools share what was downloaded. The
library itself (2.4) throws an unfinished file away, so the files are written here.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock

from adapters.huggingface.halt import Halt
from adapters.huggingface.manifest import CONFIG, Manifest, RemoteFile, is_weights

_LOCK_WAIT = 0.3  # seconds between looks at whether the work is still wanted


@dataclass(frozen=True, slots=True)
class RepoCache:
    """cache: the folder that has all of them."""

    cache: Path
    model: str

    @property
    def folder(self) -> Path:
        return self.cache / self._name

    def partial(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / f"{file.digest}.incomplete"

    def blob(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / file.digest

    def finished(self, commit: str, file: RemoteFile) -> Path | None:
        """Where the file is, if all of it is here: maybe not yet verified."""
        pointer = self._pointer(commit, file)
        here = [self.blob(file), *([] if pointer.is_symlink() else [pointer]), self.partial(file)]
        return next((p for p in here if p.is_file() and p.stat().st_size == file.size), None)

    def arrived(self, commit: str, file: RemoteFile) -> int:
        """How many bytes of it are here."""
        if self.finished(commit, file):
            return file.size
        partial = self.partial(file)
        return min(partial.stat().st_size, file.size) if partial.is_file() else 0

    def prepare(self) -> None:
        """Raises OSError."""
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)
        self._locks.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self, file: RemoteFile, halt: Halt) -> Iterator[None]:
        """Against other downloads of it, in this process or another. Raises Halted."""
        with ExitStack() as held:
            while True:
                halt.check()
                try:
                    path = self._locks / f"{file.digest}.lock"
                    held.enter_context(WeakFileLock(path, timeout=_LOCK_WAIT))
                    break
                except Timeout:
                    continue
            yield

    def accept(self, file: RemoteFile, place: Path) -> None:
        """`place` has turned out to hold the file. Raises OSError."""
        if place == self.partial(file):
            place.replace(self.blob(file))

    def reject(self, commit: str, file: RemoteFile) -> None:
        """None of what is here of it is the file. Raises OSError."""
        for place in (self._pointer(commit, file), self.blob(file), self.partial(file)):
            place.unlink(missing_ok=True)

    def publish(self, manifest: Manifest, revision: str) -> None:
        """Make the snapshot. From its last link on it is a whole model. Raises OSError."""
        (self._snapshots / manifest.commit).mkdir(parents=True, exist_ok=True)
        for file in sorted(manifest.files, key=_publishing_order):
            self._link(manifest.commit, file)
        if revision != manifest.commit:
            ref = self.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            draft = self._draft()
            draft.write_text(manifest.commit)
            draft.replace(ref)

    def _link(self, commit: str, file: RemoteFile) -> None:
        blob, pointer = self.blob(file), self._pointer(commit, file)
        if not blob.is_file():
            return  # on a disk without links the pointer is the file
        draft = self._draft()
        try:
            draft.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # a disk without links, such as exFAT
            if is_weights(file.name):
                draft = blob
            else:  # several names may have the same small content
                shutil.copyfile(blob, draft)
        draft.replace(pointer)

    def _draft(self) -> Path:
        return self.folder / f".{uuid.uuid4().hex}.tmp"

    def _pointer(self, commit: str, file: RemoteFile) -> Path:
        return self._snapshots / commit / file.name

    @property
    def _snapshots(self) -> Path:
        return self.folder / "snapshots"

    @property
    def _locks(self) -> Path:
        return self.cache / ".locks" / self._name

    @property
    def _name(self) -> str:
        return repo_folder_name(repo_id=self.model, repo_type="model")


def _publishing_order(file: RemoteFile) -> int:
    """Weights after their index, which tells how many they are; the config, without which
    nothing is a model, last.
    """
    return 2 if file.name == CONFIG else int(is_weights(file.name))
