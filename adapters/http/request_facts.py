"""What is known of the HTTP request that is being answered: for its line in the log, and counts."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from application.record import AnswerRecord
from domain.errors import ModelNotFound


@dataclass(slots=True, eq=False)
class RequestFacts:
    """status: 0 until an answer is begun. handler: the route's pattern. key: the name of the API
    key, if it has one. code: of the error, if it failed. Never what was said.
    """

    id: str
    method: str
    path: str
    began: float = field(default_factory=time.monotonic)
    status: int = 0
    handler: str = ""
    key: str = ""
    code: str = ""
    answers: list[AnswerRecord] = field(default_factory=list)

    @property
    def model(self) -> str:
        """What was asked, whether or not it is here."""
        return str(self.answers[0].model) if self.answers else ""

    @property
    def known_model(self) -> str:
        """Empty for what is not here."""
        first = self.answers[0] if self.answers else None
        return "" if first is None or isinstance(first.error, ModelNotFound) else str(first.model)

    @property
    def outcome(self) -> str:
        """How the answers ended: each reason once."""
        reasons = (a.reason or ("error" if a.error else "abort") for a in self.answers)
        return ",".join(dict.fromkeys(reasons))

    def fields(self) -> dict[str, Any]:
        """For the log. Several answers (`n`) count together, and their times are the first's."""
        fields: dict[str, Any] = {
            "request_id": self.id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "total_ms": _ms(time.monotonic() - self.began),
        }
        fields |= {
            name: value for name, value in (("key", self.key), ("error", self.code)) if value
        }
        if self.answers:
            fields |= self._of_answers()
        return fields

    def _of_answers(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self.model,
            "prompt_tokens": sum(answer.prompt_tokens for answer in self.answers),
            "completion_tokens": sum(answer.generated_tokens for answer in self.answers),
            "cached_tokens": sum(answer.cached_tokens for answer in self.answers),
            "finish_reason": self.outcome,
            "queue_ms": _ms(min(answer.timings.queue for answer in self.answers)),
        }
        said = [a.timings.first_token for a in self.answers if a.first_token is not None]
        return fields | ({"ttft_ms": _ms(min(said))} if said else {})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


current_request: ContextVar[RequestFacts | None] = ContextVar("current_request", default=None)


def note_error(code: str | None) -> None:
    """The request that is being answered fails, for this reason; the first one counts."""
    facts = current_request.get()
    if facts:
        facts.code = facts.code or code or ""


def note_key(name: str) -> None:
    """The request that is being answered came with this API key."""
    facts = current_request.get()
    if facts:
        facts.key = name


class RequestObserver:
    """Tells the request of its answers; each runs in a task of the request, or one made by it."""

    def begun(self, record: AnswerRecord) -> None:
        facts = current_request.get()
        if facts:
            facts.answers.append(record)

    def first_token(self, record: AnswerRecord) -> None:
        """It is in the record."""

    def ended(self, record: AnswerRecord) -> None:
        """So is that."""
