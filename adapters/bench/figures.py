"""The figures of a run: samples of replies, what they say, and ratios. Pure; times in seconds."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from adapters.bench.reply import Reply


@dataclass(frozen=True, slots=True)
class Sample:
    """What the replies of one part of one stage gave. Those that failed only count as failed."""

    seconds: float = 0.0  # from the first request sent to the last reply's end
    replies: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)  # by kind
    details: Mapping[str, str] = field(default_factory=dict)  # of a failure of each kind
    all_started: tuple[float, ...] = ()  # from the first sent to the last first token; one a round;
    # none unless all were sent at once and all have one
    first_token: tuple[float, ...] = ()
    gaps: tuple[float, ...] = ()  # between arrivals of text
    per_token: tuple[float, ...] = ()  # a request's mean after the first token
    end_to_end: tuple[float, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    chunks: int = 0
    uncounted: int = 0  # replies whose tokens the server didn't count


def sample(replies: Sequence[Reply], *, at_once: bool = False) -> Sample:
    """What these say together. `at_once`: none was sent only after another had ended."""
    failed = [reply.failure for reply in replies if reply.failure]
    good = [reply for reply in replies if not reply.failure]
    started = [reply for reply in good if reply.arrivals]
    sent = min((reply.sent for reply in replies), default=0.0)
    return Sample(
        seconds=max((reply.ended for reply in replies), default=0.0) - sent,
        replies=len(good),
        failures=Counter(failure.kind for failure in failed),
        details={failure.kind: failure.detail for failure in failed},
        all_started=(max(reply.arrivals[0] for reply in started) - sent,)
        if at_once and len(started) == len(replies) > 0
        else (),
        first_token=tuple(reply.arrivals[0] - reply.sent for reply in started),
        gaps=tuple(gap for reply in good for gap in _gaps(reply)),
        per_token=tuple(
            (reply.arrivals[-1] - reply.arrivals[0]) / (reply.output_tokens - 1)
            for reply in started
            if reply.output_tokens > 1
        ),
        end_to_end=tuple(reply.ended - reply.sent for reply in good),
        prompt_tokens=sum(reply.prompt_tokens for reply in good),
        cached_tokens=sum(reply.cached_tokens for reply in good),
        output_tokens=sum(reply.output_tokens for reply in good),
        chunks=sum(reply.chunks for reply in good),
        uncounted=sum(not reply.counted for reply in good),
    )


def gaps_within(replies: Iterable[Reply], start: float, end: float) -> Sample:
    """Only the gaps between arrivals that overlap this time."""
    overlapping = (
        after - before
        for reply in replies
        if not reply.failure
        for before, after in pairwise(reply.arrivals)
        if after > start and before < end
    )
    return Sample(gaps=tuple(overlapping))


def pooled(samples: Sequence[Sample]) -> Sample:
    """Several rounds as one: the times of all, the sums of the counts."""
    failures: Counter[str] = Counter()
    details: dict[str, str] = {}
    for one in samples:
        failures.update(one.failures)
        details |= one.details
    return Sample(
        seconds=sum(one.seconds for one in samples),
        replies=sum(one.replies for one in samples),
        failures=failures,
        details=details,
        all_started=_joined(one.all_started for one in samples),
        first_token=_joined(one.first_token for one in samples),
        gaps=_joined(one.gaps for one in samples),
        per_token=_joined(one.per_token for one in samples),
        end_to_end=_joined(one.end_to_end for one in samples),
        prompt_tokens=sum(one.prompt_tokens for one in samples),
        cached_tokens=sum(one.cached_tokens for one in samples),
        output_tokens=sum(one.output_tokens for one in samples),
        chunks=sum(one.chunks for one in samples),
        uncounted=sum(one.uncounted for one in samples),
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share (0 < share <= 1) of all are not above.

    The nearest rank: always a value that was measured. Raises IndexError when there is none.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Times:
    """Of many times: how many, and three of them."""

    count: int
    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Times | None":
        """None of none."""
        if not values:
            return None
        return cls(len(values), percentile(values, 0.5), percentile(values, 0.99), max(values))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a sample says. Rates are per second; None is what it doesn't say."""

    replies: int
    failures: Mapping[str, int]
    seconds: float
    output_rate: float | None
    total_rate: float | None  # prompt tokens, cached ones too, and output tokens
    chunk_rate: float | None
    first_token: Times | None
    all_started: float | None
    gap: Times | None
    per_token: Times | None
    end_to_end: Times | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    uncounted: int

    @classmethod
    def of(cls, sample: Sample) -> "Figures":
        def rate(count: int) -> float | None:
            return count / sample.seconds if sample.seconds > 0 and sample.replies else None

        return cls(
            replies=sample.replies,
            failures=dict(sample.failures),
            seconds=sample.seconds,
            output_rate=rate(sample.output_tokens),
            total_rate=rate(sample.prompt_tokens + sample.output_tokens),
            chunk_rate=rate(sample.chunks),
            first_token=Times.of(sample.first_token),
            all_started=percentile(sample.all_started, 0.5) if sample.all_started else None,
            gap=Times.of(sample.gaps),
            per_token=Times.of(sample.per_token),
            end_to_end=Times.of(sample.end_to_end),
            prompt_tokens=sample.prompt_tokens,
            cached_tokens=sample.cached_tokens,
            output_tokens=sample.output_tokens,
            uncounted=sample.uncounted,
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure that servers are compared by."""

    key: str
    label: str
    value: Callable[[Figures], float | None]
    unit: str  # "/s" or "s"

    @property
    def more_is_better(self) -> bool:
        return self.unit == "/s"


def _times(
    key: str, label: str, pick: Callable[[Figures], Times | None], *names: str
) -> tuple[Measure, ...]:
    def part(name: str) -> Callable[[Figures], float | None]:
        return lambda figures: getattr(pick(figures), name, None)

    return tuple(
        Measure(f"{key}_{name}", f"{label}, {name}", part(name), "s")
        for name in names or ("median", "p99", "worst")
    )


MEASURES: tuple[Measure, ...] = (
    Measure("output_rate", "output tokens/s", lambda f: f.output_rate, "/s"),
    Measure("total_rate", "all tokens/s", lambda f: f.total_rate, "/s"),
    *_times("first_token", "first token", lambda f: f.first_token),
    Measure("all_started", "all have their first token", lambda f: f.all_started, "s"),
    *_times("gap", "between tokens", lambda f: f.gap),
    *_times("per_token", "a token", lambda f: f.per_token, "median", "p99"),
    *_times("end_to_end", "end to end", lambda f: f.end_to_end, "median", "p99"),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One server's figure over another's: of all rounds pooled, and of single rounds."""

    pooled: float
    lowest: float
    highest: float


def ratio(measure: Measure, ours: Sequence[Sample], theirs: Sequence[Sample]) -> Ratio | None:
    """None where either has no such figure. The samples of a round belong together."""
    whole = _over(measure, pooled(ours), pooled(theirs))
    rounds = [
        over
        for one, other in zip(ours, theirs, strict=True)
        if (over := _over(measure, one, other)) is not None
    ]
    if whole is None or not rounds:
        return None
    return Ratio(whole, min(rounds), max(rounds))


def _over(measure: Measure, ours: Sample, theirs: Sample) -> float | None:
    mine, other = measure.value(Figures.of(ours)), measure.value(Figures.of(theirs))
    return None if mine is None or not other else mine / other


def _gaps(reply: Reply) -> Iterable[float]:
    return (after - before for before, after in pairwise(reply.arrivals))


def _joined(parts: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(value for part in parts for value in part)
