"""What each scenario asks, and in which order. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.bench.prompts import Prompts

Message = tuple[str, str]  # role, text
Sampling = Mapping[str, float]

GREEDY: Sampling = {"temperature": 0}

# Enough to see that the long prompt's own answer runs.
_LATE_OUTPUT_TOKENS = 16

# How often every running stream is heard before the long prompt is sent.
_HEARD_BEFORE = 16


@dataclass(frozen=True, slots=True)
class Request:
    """One turn of a chat; the turns before are sent along."""

    chat: str  # unique within a round, except for turns of the same chat
    messages: tuple[Message, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=lambda: GREEDY)


@dataclass(frozen=True, slots=True)
class Stage:
    """Requests that are measured together, at most `concurrency` of them under way at once."""

    name: str
    concurrency: int
    requests: tuple[Request, ...]
    late: Request | None = None  # sent once every stream was heard `heard_before` times
    heard_before: int = _HEARD_BEFORE


@dataclass(frozen=True, slots=True)
class Workload:
    """The knobs of all scenarios; each uses its own. Lengths are in tokens."""

    concurrency: tuple[int, ...] = (1, 8, 32)
    requests: int | None = None  # a stage; None leaves it to the scenario
    prompt_tokens: int = 240
    output_tokens: int = 64
    prefix_tokens: int = 1000
    turns: int = 2
    turn_tokens: int = 30
    long_tokens: int = 4000


def throughput(workload: Workload, prompts: Prompts) -> tuple[Stage, ...]:
    """Independent requests, at one number of streams after the other."""
    return tuple(
        Stage(_streams(width), width, _independent(workload, prompts, width, str(width)))
        for width in workload.concurrency
    )


def shared_prefix(workload: Workload, prompts: Prompts) -> tuple[Stage, ...]:
    """Requests that begin alike and arrive together; every stage has a prefix of its own."""
    return tuple(
        Stage(_streams(width), width, _prefixed(workload, prompts, width))
        for width in workload.concurrency
    )


def multi_turn(workload: Workload, prompts: Prompts) -> tuple[Stage, ...]:
    """Chats side by side, whose every turn repeats all before.

    A turn starts when all chats have ended the one before, so that the time to its first token
    holds no other chat's first prompt.
    """
    return tuple(
        Stage(
            f"turn {turn + 1}" + (f", {_streams(width)}" if len(workload.concurrency) > 1 else ""),
            width,
            tuple(
                _ask(workload, f"{width}/{chat}", prompts.about(tokens))
                for chat in range(workload.requests or width)
            ),
        )
        for width in workload.concurrency
        for turn, tokens in enumerate(
            (workload.prompt_tokens, *[workload.turn_tokens] * (workload.turns - 1))
        )
    )


def long_among_streams(workload: Workload, prompts: Prompts) -> tuple[Stage, ...]:
    """A long prompt that arrives while others stream."""
    return tuple(
        Stage(
            _streams(width),
            width,
            _independent(_all_at_once(workload, width), prompts, width, str(width)),
            late=Request(
                f"{width}/late",
                (("user", prompts.exactly(workload.long_tokens)),),
                min(workload.output_tokens, _LATE_OUTPUT_TOKENS),
            ),
        )
        for width in workload.concurrency
    )


def mixed_sampling(workload: Workload, prompts: Prompts) -> tuple[Stage, ...]:
    """The same load greedy, and with sampling parameters that differ between the requests."""
    stages = []
    for width in workload.concurrency:
        greedy = _independent(workload, prompts, width, f"{width}/greedy")
        mixed = _independent(workload, prompts, width, f"{width}/mixed")
        varied = tuple(replace(r, sampling=varied_sampling(n)) for n, r in enumerate(mixed))
        stages.append(Stage(f"{_streams(width)}, greedy", width, greedy))
        stages.append(Stage(f"{_streams(width)}, mixed", width, varied))
    return tuple(stages)


def varied_sampling(number: int) -> Sampling:
    """The `number`th of a row: cycles of different lengths, so that 60 pass before a repeat."""
    return {
        "temperature": (0.3, 0.7, 1.0, 1.3)[number % 4],
        "top_p": (0.8, 0.95, 1.0)[number % 3],
        "top_k": (0, 20, 40, 64, 100)[number % 5],
        "seed": number,
    }


@dataclass(frozen=True, slots=True)
class Scenario:
    plan: Callable[[Workload, Prompts], tuple[Stage, ...]]
    defaults: Workload
    own_knobs: frozenset[str] = frozenset()  # those of Workload that others don't use

    def workload(self, knobs: Mapping[str, Any]) -> Workload:
        """The defaults but for these; None leaves one as it is.

        Raises ValueError, with the name, for one that would change nothing.
        """
        given = {name: value for name, value in knobs.items() if value is not None}
        for name in given.keys() - _COMMON_KNOBS - self.own_knobs:
            raise ValueError(name)
        return replace(self.defaults, **given)


_COMMON_KNOBS = frozenset({"concurrency", "requests", "prompt_tokens", "output_tokens"})

SCENARIOS: Mapping[str, Scenario] = {
    "throughput": Scenario(throughput, Workload()),
    "shared-prefix": Scenario(
        shared_prefix,
        Workload(concurrency=(32,), prompt_tokens=30, output_tokens=16),
        frozenset({"prefix_tokens"}),
    ),
    "multi-turn": Scenario(
        multi_turn,
        Workload(concurrency=(1,), prompt_tokens=2000, output_tokens=32),
        frozenset({"turns", "turn_tokens"}),
    ),
    "long-among-streams": Scenario(
        long_among_streams,
        Workload(concurrency=(8,), output_tokens=256),
        frozenset({"long_tokens"}),
    ),
    "mixed-sampling": Scenario(mixed_sampling, Workload(concurrency=(8,))),
}


def warm_up(workload: Workload, prompts: Prompts) -> tuple[Stage, ...]:
    """A few tokens at each number of streams.

    So that the first stage measured isn't the one that loads the model and compiles its kernels.
    """
    short = replace(workload, output_tokens=min(8, workload.output_tokens))
    return tuple(
        Stage(
            "warm-up",
            width,
            tuple(
                _ask(short, f"warm-up {width}/{n}", prompts.exactly(workload.prompt_tokens))
                for n in range(width)
            ),
        )
        for width in workload.concurrency
    )


def _streams(width: int) -> str:
    return "1 stream" if width == 1 else f"{width} streams"


def _ask(workload: Workload, chat: str, text: str) -> Request:
    return Request(chat, (("user", text),), workload.output_tokens)


def _independent(
    workload: Workload, prompts: Prompts, width: int, name: str
) -> tuple[Request, ...]:
    return tuple(
        _ask(workload, f"{name}/{n}", prompts.about(workload.prompt_tokens))
        for n in range(workload.requests or 4 * width)
    )


def _prefixed(workload: Workload, prompts: Prompts, width: int) -> tuple[Request, ...]:
    prefix = ("system", prompts.exactly(workload.prefix_tokens))
    asked = _independent(_all_at_once(workload, width), prompts, width, str(width))
    return tuple(replace(request, messages=(prefix, *request.messages)) for request in asked)


def _all_at_once(workload: Workload, width: int) -> Workload:
    return replace(workload, requests=workload.requests or width)
