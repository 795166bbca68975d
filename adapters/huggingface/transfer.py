"""Getting the files of one commit onto the disk, each exactly once. Blocking."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers

from adapters.huggingface.halt import Halt
from adapters.huggingface.hub_errors import HTTP_ERRORS, Errand, disk_errors, disk_full, is_full
from adapters.huggingface.manifest import Manifest, RemoteFile
from adapters.huggingface.repo_cache import RepoCache
from adapters.huggingface.retries import Retries

_CONNECT_TIMEOUT = 10.0  # seconds
_TRIES = 5  # in a row without a byte
_PIECE = 4 << 20  # bytes that are hashed at once
_SHA256_LENGTH = 64


@dataclass(slots=True)
class Transfer:
    """Its methods may run in several threads at once, one for each file.

    arrived, verified: bytes by file name, for whoever watches.
    """

    repo: RepoCache
    manifest: Manifest
    errand: Errand
    halt: Halt
    stall_timeout: float
    backoff: float
    arrived: dict[str, int] = field(default_factory=dict)
    verified: dict[str, int] = field(default_factory=dict)
    disk_is_full: bool = False

    def begin(self) -> None:
        """Raises HubFailed when there is no room for what is missing."""
        with disk_errors(self.repo.folder):
            self.repo.prepare()
            for file in self.manifest.files:
                self.arrived[file.name] = self.repo.arrived(self.manifest.commit, file)
            free = shutil.disk_usage(self.repo.folder).free
        missing = self.manifest.size - sum(self.arrived.values())
        if missing > free:
            raise disk_full(self.repo.folder, missing, free)

    def fetch(self, file: RemoteFile) -> None:
        """Raises HubFailed or Halted; what has come is kept, unless the disk is full."""
        with disk_errors(self.repo.folder), self.repo.lock(file, self.halt):
            try:
                self._complete(file)
            except OSError as error:
                self.disk_is_full |= is_full(error)
                raise
            finally:
                if self.disk_is_full and not self._finished(file):
                    self.repo.partial(file).unlink(missing_ok=True)

    def verify(self, file: RemoteFile) -> bool:
        """Whether its bytes are the announced ones. Others are deleted."""
        self.verified[file.name] = 0
        with disk_errors(self.repo.folder), self.repo.lock(file, self.halt):
            place = self._finished(file)
            if place and self._digest(place, file) == file.digest:
                self.repo.accept(file, place)
                return True
            self.repo.reject(self.manifest.commit, file)
            self.arrived[file.name] = self.verified[file.name] = 0
            return False

    def publish(self, revision: str) -> None:
        """Make it a model of the cache. Raises HubFailed."""
        with disk_errors(self.repo.folder):
            self.repo.publish(self.manifest, revision)

    def _complete(self, file: RemoteFile) -> None:
        retries = Retries(self.errand, self.halt, _TRIES, self.backoff)
        while not self._finished(file):
            before = self.repo.arrived(self.manifest.commit, file)
            try:
                self._request(file)
            except HTTP_ERRORS as error:
                if self._cannot_continue(error, file):
                    continue
                if self.repo.arrived(self.manifest.commit, file) > before:
                    retries.progressed()
                retries.pause(error)
        self.arrived[file.name] = file.size

    def _cannot_continue(self, error: Exception, file: RemoteFile) -> bool:
        """The hub refuses to go on from where we are, so the file starts over."""
        partial = self.repo.partial(file)
        refused = (
            isinstance(error, HfHubHTTPError)
            and error.response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            and partial.exists()
        )
        if refused:
            partial.unlink()
        return refused

    def _request(self, file: RemoteFile) -> None:
        """Ask for what is missing, and append what comes. Raises HTTP_ERRORS."""
        partial = self.repo.partial(file)
        start = partial.stat().st_size if partial.exists() else 0
        if start > file.size:
            start = 0
        url = hf_hub_url(
            self.errand.model,
            file.name,
            revision=self.manifest.commit,
            endpoint=self.errand.endpoint,
        )
        timeout = httpx2.Timeout(
            self.stall_timeout, connect=min(_CONNECT_TIMEOUT, self.stall_timeout)
        )
        with (
            get_session().stream("GET", url, headers=_headers(start), timeout=timeout) as response,
            self.halt.cutting(response),
        ):
            hf_raise_for_status(response)
            goes_on = start > 0 and _goes_on_from(response, start)
            with partial.open("ab" if goes_on else "wb") as out:
                self._write(response, file, out, start if goes_on else 0)
                out.flush()
                os.fsync(out.fileno())  # a loss of power must not leave holes behind a name

    def _write(
        self, response: httpx2.Response, file: RemoteFile, out: BinaryIO, arrived: int
    ) -> None:
        self.arrived[file.name] = arrived
        for piece in response.iter_bytes():
            self.halt.check()
            arrived += len(piece)
            if arrived > file.size:
                # It can't be the file. Without its excess it fails the verification.
                out.write(piece[: file.size - arrived])
                return
            out.write(piece)
            self.arrived[file.name] = arrived
        if arrived < file.size:
            raise httpx2.RemoteProtocolError("the file ended early", request=response.request)

    def _finished(self, file: RemoteFile) -> Path | None:
        return self.repo.finished(self.manifest.commit, file)

    def _digest(self, place: Path, file: RemoteFile) -> str:
        """sha256, or the id that git gives to the content."""
        if len(file.digest) == _SHA256_LENGTH:
            digest = hashlib.sha256()
        else:
            digest = hashlib.sha1(usedforsecurity=False)
            digest.update(b"blob %d\0" % file.size)
        for piece in _pieces(place):
            self.halt.check()
            digest.update(piece)
            self.verified[file.name] += len(piece)
        return digest.hexdigest()


def _headers(start: int) -> dict[str, str]:
    # Not compressed: the ranges count the file's own bytes.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    return headers | ({"Range": f"bytes={start}-"} if start else {})


def _goes_on_from(response: httpx2.Response, start: int) -> bool:
    """False where the server ignores ranges and sends all of the file."""
    answer = response.headers.get("Content-Range", "")
    return response.status_code == HTTPStatus.PARTIAL_CONTENT and answer.startswith(
        f"bytes {start}-"
    )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
