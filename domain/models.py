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
        segments = text.split("/")
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
class ModelCard:
    """What is known of a model before it is loaded."""

    id: ModelId
    revision: str  # the commit of a hub snapshot; "" for a local folder
    location: Path
    weight_bytes: int
    context_length: int  # tokens
    created: int  # unix seconds


class ModelState(StrEnum):
    """How far a model is from answering."""

    HOT = "hot"
    LOADING = "loading"
    LOADABLE = "loadable"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the catalog and how far it is from answering."""

    card: ModelCard
    state: ModelState
