"""How much was done in the last minute, and when more may be. No clock: callers tell the time."""

from collections import deque
from collections.abc import Sequence

from domain.chat import ChatCommand, TextCommand
from domain.limits import prompt_length

WINDOW = 60.0  # seconds

_CHARACTERS = 4  # of a token, about, before the model's tokenizer has said
_UNBOUNDED = 1024  # tokens of an answer that may be as long as the context allows
_SOON = 1.0  # seconds; nobody knows when those under way will end


def expected_tokens(commands: Sequence[ChatCommand | TextCommand], per_prompt: int) -> int:
    """What a request may cost: its prompts, each once, and what its answers are allowed.

    per_prompt: how many commands in a row share a prompt.
    """
    prompts = sum(_prompt_tokens(command) for command in commands[::per_prompt])
    allowed = (command.sampling.max_tokens for command in commands)
    return prompts + sum(_UNBOUNDED if tokens is None else tokens for tokens in allowed)


def _prompt_tokens(command: ChatCommand | TextCommand) -> int:
    if isinstance(command, TextCommand) and not isinstance(command.prompt, str):
        return len(command.prompt)
    return -(-prompt_length(command) // _CHARACTERS)


class SlidingWindow:
    """No minute, wherever it begins, holds more than `limit` when `wait` is obeyed.

    What was done is forgotten a minute after it was recorded. What is under way is held, as far
    as it is foreseen, and recorded when it is over: more than the limit may be, and then it takes
    longer until there is room. Times are in seconds and never go back.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._done: deque[tuple[float, int]] = deque()
        self._used = 0
        self._held = 0

    def hold(self, amount: int) -> None:
        """For what is under way, and takes so much more of the limit. Negative: so much less."""
        self._held += amount

    def record(self, now: float, amount: int) -> None:
        self._forget(now)
        if amount > 0:
            self._done.append((now, amount))
            self._used += amount

    def remaining(self, now: float) -> int:
        self._forget(now)
        return max(self.limit - self._used - self._held, 0)

    def wait(self, now: float, amount: int = 1) -> float:
        """Seconds until there is room for it; 0 if there is now. What is more than the limit has
        room when nothing else does. Those under way may make room earlier, or much later.
        """
        self._forget(now)
        excess = self._used + self._held - self.limit + min(amount, self.limit)
        if excess <= 0:
            return 0.0
        for when, done in self._done:
            excess -= done
            if excess <= 0:
                return when + WINDOW - now
        return max(self.reset(now), _SOON)

    def reset(self, now: float) -> float:
        """Seconds until all of the limit is free again."""
        self._forget(now)
        return self._done[-1][0] + WINDOW - now if self._done else 0.0

    def _forget(self, now: float) -> None:
        while self._done and self._done[0][0] + WINDOW <= now:
            self._used -= self._done.popleft()[1]
