"""The Hugging Face hub as a source of models, through its own client library."""

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    HfApi,
    ModelInfo,
    constants,
    get_session,
    get_token,
    hf_raise_for_status,
    is_offline_mode,
)
from huggingface_hub.utils import build_hf_headers

from adapters.huggingface.halt import Halt
from adapters.huggingface.hub_errors import HUB_ERRORS, Errand, offline, renamed
from adapters.huggingface.hub_models import EXPANDED, found_models
from adapters.huggingface.manifest import read_manifest
from adapters.huggingface.pull import done, fetch_and_verify
from adapters.huggingface.repo_cache import RepoCache
from adapters.huggingface.retries import Retries
from adapters.huggingface.transfer import Transfer
from adapters.huggingface.worker_thread import in_thread
from domain.errors import InvalidRequest
from domain.models import FoundModel, ModelId, PullPhase, PullProgress

T = TypeVar("T")

_TRIES = 4  # of a question
_DEFAULT_REVISION = "main"
_REVISION = re.compile(r"[\w][\w.+@-]*(/[\w][\w.+@-]*)*")  # of branches, tags and commits
_LONGEST_REVISION = 200


@dataclass(frozen=True, slots=True)
class HubOptions:
    """cache_dir, endpoint: None is where huggingface_hub has them (HF_HOME, HF_ENDPOINT).

    stall_timeout: seconds without a byte. backoff: seconds before the second try.
    """

    cache_dir: Path | None = None
    endpoint: str | None = None
    offline: bool = False
    stall_timeout: float = 30.0
    backoff: float = 1.0


class HuggingFaceSource:
    """Files come over plain HTTP, even where the hub has them in Xet: that is what can be resumed,
    stopped at any byte, and watched for stalls.

    changed: called when a model has come whole, before DONE is told.
    """

    def __init__(
        self,
        options: HubOptions = HubOptions(),
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._changed = changed
        self._cache = (options.cache_dir or Path(constants.HF_HUB_CACHE)).expanduser()
        self._endpoint = (options.endpoint or constants.ENDPOINT).rstrip("/")

    async def search(self, text: str, limit: int) -> tuple[FoundModel, ...]:
        """MLX models whose names match, the most downloaded first. Raises HubFailed."""
        self._refuse_offline()
        halt = Halt()
        try:
            return await in_thread(lambda: found_models(self._list(text, limit, halt)))
        finally:
            halt.stop()

    async def pull(
        self, model: ModelId, revision: str | None = None
    ) -> AsyncGenerator[PullProgress, None]:
        """Every file is hashed once more, those that were there already as well. While VERIFYING,
        bytes_done counts what was hashed; a damaged file leads back to DOWNLOADING, once.

        Raises HubFailed, and InvalidRequest for what can't be a revision.
        """
        self._refuse_offline()
        _check_revision(revision)
        halt = Halt()
        try:
            yield PullProgress(PullPhase.RESOLVING)
            transfer = await in_thread(lambda: self._resolve(model, revision, halt))
            async with aclosing(fetch_and_verify(transfer)) as progresses:
                async for progress in progresses:
                    yield progress
            await in_thread(lambda: transfer.publish(revision or _DEFAULT_REVISION))
            self._changed()
            yield done(transfer)
        finally:
            halt.stop()

    def _refuse_offline(self) -> None:
        if self._options.offline or is_offline_mode():
            raise offline()

    def _resolve(self, model: ModelId, revision: str | None, halt: Halt) -> Transfer:
        """The commit is looked up once: a branch that moves meanwhile does not mix its files."""
        # Asked for here, off the loop: a login that has expired is renewed over the network.
        errand = Errand(self._endpoint, str(model), revision, bool(get_token()))
        info = self._ask(errand, halt, lambda: self._info(errand))
        if info.id != errand.model:
            raise renamed(errand, info.id)
        return Transfer(
            RepoCache(self._cache, errand.model),
            read_manifest(info),
            errand,
            halt,
            self._options.stall_timeout,
            self._options.backoff,
        )

    def _list(self, text: str, limit: int, halt: Halt) -> list[ModelInfo]:
        errand = Errand(self._endpoint, with_token=bool(get_token()))
        return self._ask(errand, halt, lambda: self._page(text, limit))

    def _ask(self, errand: Errand, halt: Halt, question: Callable[[], T]) -> T:
        """Raises HubFailed or Halted."""
        retries = Retries(errand, halt, _TRIES, self._options.backoff)
        while True:
            try:
                return question()
            except HUB_ERRORS as error:
                retries.pause(error)

    def _info(self, errand: Errand) -> ModelInfo:
        return HfApi(endpoint=self._endpoint).model_info(
            errand.model,
            revision=errand.revision,
            timeout=self._options.stall_timeout,
            files_metadata=True,
        )

    def _page(self, text: str, limit: int) -> list[ModelInfo]:
        # HfApi.list_models (2.4) waits forever, and sleeps for as long as the hub wants.
        response = get_session().get(
            f"{self._endpoint}/api/models",
            params={
                "filter": "mlx",
                "search": text,
                "sort": "downloads",
                "limit": limit,
                "expand": list(EXPANDED),
            },
            headers=build_hf_headers(),
            timeout=self._options.stall_timeout,
        )
        hf_raise_for_status(response)
        return [ModelInfo(**entry) for entry in response.json()[:limit]]


def _check_revision(revision: str | None) -> None:
    """It becomes a file's name in the cache. Raises InvalidRequest."""
    if revision is None:
        return
    if not _REVISION.fullmatch(revision) or len(revision) > _LONGEST_REVISION or ".." in revision:
        shown = ascii(revision[:80])[1:-1]
        raise InvalidRequest(f"`{shown}` is not a branch, a tag or a commit.", "revision")
