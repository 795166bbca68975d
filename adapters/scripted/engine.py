"""A deterministic engine that says what it is told: for tests, demos and client development."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from adapters.scripted.conform import conform
from application.ports import EngineStats
from domain.chat import ChatCommand, TextCommand, Tool, ToolCall, require_text
from domain.errors import ContextOverflow, DomainError, EngineFailed, ShuttingDown
from domain.memory import CacheLayers, LoadPlan, MemoryProfile
from domain.models import ModelCard
from domain.outputs import (
    Echo,
    End,
    EngineOutput,
    Markup,
    Piece,
    PromptProgress,
    TokenScore,
)

_MEMORY = 16 * 10**9  # bytes


@dataclass(frozen=True, slots=True)
class Script:
    """What the engine says, how fast, and when it breaks.

    reply: the answer to everything; empty: the last user message, or the prompt, is echoed.
    replies: answers to particular user messages, before `reply`.
    Delays are in seconds; without a token_delay, `burst` tokens are said at once, and then it is
    the turn of others. fail_after and hang_after count the tokens of one answer; -1 is never.
    A failure breaks the engine for every request in flight; a hang stops them all, and the engine
    can't be closed any more. So do faults of a real one.
    """

    reply: str = ""
    replies: Mapping[str, str] = field(default_factory=dict)
    token_delay: float = 0.0
    prompt_delay: float = 0.0
    load_delay: float = 0.0
    fail_after: int = -1
    hang_after: int = -1
    fail_load: bool = False
    slots: int = 32
    burst: int = 16
    kv_bytes_per_token: int = 0


def parse_calls(text: str, tools: tuple[Tool, ...]) -> tuple[ToolCall, ...]:
    """Hermes style: one JSON object with `name` and `arguments`, naming a tool that was offered."""
    try:
        call = json.loads(text)
        name, arguments = call["name"], call.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()
    if not isinstance(arguments, dict) or all(tool.name != name for tool in tools):
        return ()
    return (ToolCall(f"call_{name}_{len(text)}", name, json.dumps(arguments)),)


MARKUP = Markup(("<think>", "</think>"), ("<tool_call>", "</tool_call>"), parse_calls, parse_calls)


def pieces(text: str) -> list[str]:
    """The scripted engine's tokens: words with the white space before them."""
    return re.findall(r"\s*\S+|\s+", text)


class ScriptedEngine:
    """Every request runs its script in a place of its own; `slots` of them at once."""

    def __init__(self, card: ModelCard, plan: LoadPlan, script: Script) -> None:
        self._card = card
        self._context_length = plan.context_length
        self._script = script
        self._faults = (script.hang_after, script.fail_after)
        self._slots = asyncio.Semaphore(script.slots)
        self._ended = asyncio.Event()
        self._error: DomainError | None = None
        self._waiting = self._running = self._widest = 0
        self._steps = self._prefilled = self._tokens = 0
        self._hung_at: float | None = None

    @property
    def markup(self) -> Markup:
        return MARKUP

    @property
    def footprint(self) -> int:
        return self._card.weight_bytes

    @property
    def heartbeat(self) -> float:
        return time.monotonic() if self._hung_at is None else self._hung_at

    @property
    def alive(self) -> bool:
        return self._error is None

    @property
    def slots(self) -> int:
        return self._script.slots

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            running=self._running,
            waiting=self._waiting,
            steps=self._steps,
            prefilled_tokens=self._prefilled,
            generated_tokens=self._tokens,
            widest_batch=self._widest,
        )

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        prompt_tokens, reply = self._read(command)
        room = self._context_length - prompt_tokens
        if room <= 0:
            param = "messages" if isinstance(command, ChatCommand) else "prompt"
            raise ContextOverflow(prompt_tokens, self._context_length, param)
        await self._enter()
        try:
            if self._script.prompt_delay:
                yield PromptProgress(0, prompt_tokens)
            await self._pause(self._script.prompt_delay)
            self._prefilled += prompt_tokens
            yield PromptProgress(prompt_tokens, prompt_tokens)
            if isinstance(command, TextCommand) and command.echo:
                yield _echo(command)
            said = pieces(reply)
            wanted = command.sampling.max_tokens
            limit = room if wanted is None else min(wanted, room)
            for count, text in enumerate(said[:limit]):
                await self._step(count)
                yield Piece(text, _score(text, command.sampling.top_logprobs))
            if limit < len(said):
                yield End("length")
                return
            await self._misbehave(len(said))
            yield End("stop")
        finally:
            self._running -= 1
            self._slots.release()

    async def close(self, error: DomainError | None = None) -> None:
        self._end(error or ShuttingDown())
        if self._hung_at is not None:
            await asyncio.Event().wait()  # what hangs never gives its memory back

    def _read(self, command: ChatCommand | TextCommand) -> tuple[int, str]:
        """The number of prompt tokens, and the reply."""
        if isinstance(command, TextCommand):
            prompt = command.prompt if isinstance(command.prompt, str) else ""
            count = len(pieces(prompt)) or len(command.prompt)
            return count, self._reply(prompt)
        require_text(command.messages)
        count = sum(len(pieces(message.text)) + 1 for message in command.messages)
        users = [message.text for message in command.messages if message.role == "user"]
        reply = self._reply(users[-1] if users else "")
        return count, conform(reply, command.constraint) if command.constraint else reply

    def _reply(self, asked: str) -> str:
        return self._script.replies.get(asked, self._script.reply or asked)

    async def _enter(self) -> None:
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        self._widest = max(self._widest, self._running)

    async def _step(self, count: int) -> None:
        if count in self._faults:
            await self._misbehave(count)
        if self._script.token_delay or count % self._script.burst == 0:
            await self._pause(self._script.token_delay)
        self._steps += 1
        self._tokens += 1

    async def _misbehave(self, count: int) -> None:
        if count == self._script.hang_after:
            self._hung_at = self._hung_at or time.monotonic()
            await self._ended.wait()
        if count == self._script.fail_after:
            self._end(EngineFailed("The scripted engine failed, as it was told to."))
        if self._error:
            raise self._error

    async def _pause(self, seconds: float) -> None:
        if self._hung_at is not None:
            await self._ended.wait()
        if seconds:
            try:
                await asyncio.wait_for(self._ended.wait(), seconds)
            except TimeoutError:
                pass
        else:
            await asyncio.sleep(0)
        if self._error:
            raise self._error

    def _end(self, error: DomainError) -> None:
        self._error = self._error or error
        self._ended.set()


def _echo(command: TextCommand) -> Echo:
    """Token ids are shown as numbers: the scripted engine has no vocabulary."""
    prompt = command.prompt
    text = prompt if isinstance(prompt, str) else " ".join(str(token) for token in prompt)
    if command.sampling.top_logprobs is None or not text:
        return Echo(text)
    first, *rest = pieces(text)
    scores = [_score(piece, command.sampling.top_logprobs) for piece in rest]
    opening = TokenScore(first, first.encode(), None)
    return Echo(text, (opening, *(score for score in scores if score)))


def _score(text: str, alternatives: int | None) -> TokenScore | None:
    if alternatives is None:
        return None
    likely = [TokenScore(text, text.encode(), -0.25)]
    likely += [
        TokenScore(f" alt{n}", f" alt{n}".encode(), -1.0 - n) for n in range(1, alternatives)
    ]
    return TokenScore(text, text.encode(), -0.25, tuple(likely[:alternatives]))


class ScriptedLoader:
    """Loads a scripted engine for any card."""

    def __init__(self, script: Script) -> None:
        self._script = script

    @property
    def memory(self) -> int:
        """Of no machine in particular."""
        return _MEMORY

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Weights as the card says, and caches as the script does."""
        return MemoryProfile(card.weight_bytes, (CacheLayers(self._script.kv_bytes_per_token),))

    async def load(self, card: ModelCard, plan: LoadPlan) -> ScriptedEngine:
        """Raises EngineFailed when the script says so."""
        await asyncio.sleep(self._script.load_delay)
        if self._script.fail_load:
            raise EngineFailed(f"The model `{card.id}` failed to load, as it was told to.")
        return ScriptedEngine(card, plan, self._script)
