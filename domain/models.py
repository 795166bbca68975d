"""Models as the world names them, and what is known of each before it is loaded."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from domain.errors import InvalidRequest

_MAX_ID_LENGTH = 200


@dataclass(frozen=True, slots=True, order=True)
class ModelId:
    """`owner/name`, a bare name, or the id of a configured local folder.

    Parsed once; no path is ever made from client text.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id as clients write it. Raises InvalidRequest for what can't be one."""
        segments = text[: _MAX_ID_LENGTH + 1].split("/")
        well_formed = (
            len(text) <= _MAX_ID_LENGTH
            and len(segments) <= 2  # noqa: PLR2004 - owner/name
            and text.isprintable()
            and "\\" not in text
            and all(s and s == s.strip() and not s.startswith(".") for s in segments)
        )
        if not well_formed:
            shown = ascii(text[:80])[1:-1]
            raise InvalidRequest(f"`{shown}` is not a model id (`owner/name` or a name).", "model")
        return cls(text)

    def __str__(self) -> str:
        return self.text

    @property
    def owner(self) -> str:
        """The part before the slash; empty for a bare name."""
        return self.text.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model's chat template lets it do; none of it without a template."""

    chat_template: bool = False
    tools: bool = False
    thinking: bool = False


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model before it is loaded."""

    id: ModelId
    revision: str  # the commit of a hub snapshot; "" for a local folder
    location: Path
    weight_bytes: int
    context_length: int  # tokens
    created: int  # unix seconds
    architecture: str = ""  # `model_type` of its config
    quantization: str | None = None  # "4-bit"; None for full precision
    capabilities: Capabilities = Capabilities()


class ModelState(StrEnum):
    """How far a model is from answering."""

    HOT = "hot"
    LOADING = "loading"
    LOADABLE = "loadable"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the catalog and how far it is from answering.

    context_length: the tokens that a request may hold here; less than the card's where a setting
    or the memory says so. newer_revision: on the disk, while the card is of another one that is
    in memory; the next load takes it.
    """

    card: ModelCard
    state: ModelState
    context_length: int
    newer_revision: str | None = None


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model's share of the disk, all revisions and unfinished downloads included."""

    id: ModelId
    bytes_on_disk: int
    last_used: float  # unix seconds
    whole: bool  # at least one revision can be loaded


@dataclass(frozen=True, slots=True)
class DiskUse:
    """The cache of downloaded models, in bytes."""

    location: Path
    free: int
    models: tuple[CachedModel, ...]

    @property
    def used(self) -> int:
        return sum(model.bytes_on_disk for model in self.models)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model on the hub. What the hub does not say is None."""

    id: ModelId
    downloads: int
    likes: int
    updated: str  # ISO 8601
    size: int | None = None  # bytes of its weights
    quantization: str | None = None
    gated: bool = False


class PullPhase(StrEnum):
    """What a download is busy with, in this order. A damaged file leads back to DOWNLOADING, once;
    while VERIFYING, bytes_done counts what was checked.
    """

    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a download has come. Bytes of all files together; speed over the last seconds."""

    phase: PullPhase
    revision: str = ""  # the commit that is downloaded, once it is known
    bytes_done: int = 0
    bytes_total: int = 0
    files_done: int = 0
    files_total: int = 0
    bytes_per_second: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """None while nobody can tell."""
        if self.phase is not PullPhase.DOWNLOADING or self.bytes_per_second <= 0:
            return None
        return (self.bytes_total - self.bytes_done) / self.bytes_per_second
