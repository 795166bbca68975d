"""Raw text of a model into events: thoughts, tool calls and stop strings taken apart.

Any chunking of the same text gives the same assembled answer. Whatever may still turn out
to be a marker or a stop string is held back until it is known.

White space that touches a marker belongs to the marker, so neither thoughts nor answer
begin or end with the line breaks that models put around their tags.
"""

import sys
from collections.abc import Iterator
from enum import Enum, auto

from domain.chat import Tool
from domain.events import (
    ChatEvent,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from domain.held_text import Channel, Span, overlap
from domain.outputs import Echo, End, EngineOutput, Markup, Piece, PromptProgress, TokenScore
from domain.token_ledger import Ledger


class _State(Enum):
    ANSWER = auto()
    THINKING = auto()
    CALL = auto()


class Splitter:
    """Turns the outputs of one generation into the events of one answer.

    stop: strings that end the answer and are never shown; they are looked for in the answer
    and in the thoughts, not inside tool calls. tools: what the model may call; without any,
    call markers are text. Without parallel_tool_calls the answer ends with its first call.
    forced_call: the answer, but for thoughts before it, is one call without markers.
    """

    def __init__(
        self,
        markup: Markup,
        stop: tuple[str, ...] = (),
        tools: tuple[Tool, ...] = (),
        *,
        parallel_tool_calls: bool = True,
        forced_call: bool = False,
    ) -> None:
        self._markup = markup
        self._tools = tools
        self._parse = markup.parse_forced if forced_call else markup.parse_calls
        self._most_calls = sys.maxsize if parallel_tool_calls else 1
        self._call = ("", "") if forced_call else markup.tool_call if tools else None
        marked = markup.thinking is not None or self._call is not None
        self._channels = {
            _State.ANSWER: Channel(stop, marked),
            _State.THINKING: Channel(stop, marked),
        }
        marks = [*(markup.thinking or ()), *(self._call or ()), *stop]
        self._beginnings = frozenset(mark[0] for mark in marks if mark)
        self._holds_space = marked
        self._home = _State.CALL if forced_call else _State.ANSWER
        self._state = _State.ANSWER if markup.thinking else self._home
        self._call_from = _State.ANSWER
        self._call_space: list[Span] = []
        self._ledger = Ledger()
        self._raw = ""  # text that is not resolved yet
        self._start = 0  # where it stands in all the raw text
        self._skips_space = False
        self._prompt = PromptProgress(0, 0)
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._calls = 0
        self.finished = False

    def feed(self, output: EngineOutput) -> Iterator[ChatEvent]:
        """The events that `output` makes certain. After `finished`, nothing is to be fed."""
        match output:
            case PromptProgress():
                self._prompt = output
                if output.opens_thinking and self._markup.thinking:
                    self._enter(_State.THINKING)
                yield output
            case Echo():
                yield TextDelta(output.text, output.scores)
            case Piece() if self._is_plain(output):
                self._completion_tokens += 1
                yield self._show_plain(output.text)
            case Piece():
                before = self._state
                yield from self._read(output.text, output.score)
                self._completion_tokens += 1
                self._reasoning_tokens += _State.THINKING in (before, self._state)
                if self._stopped:
                    yield from self._finish("stop")
            case End():
                yield from self._read(output.text, None)
                yield from self._resolve()
                yield from self._finish("stop" if self._stopped else output.reason)

    @property
    def _stopped(self) -> bool:
        enough = self._calls >= self._most_calls
        return enough or any(channel.stopped for channel in self._channels.values())

    def _is_plain(self, piece: Piece) -> bool:
        """Nothing before it is held, and nothing in it may belong to a marker or a stop string.

        That is what most tokens are, and they need no more than this.
        """
        text = piece.text
        return (
            text != ""
            and piece.score is None
            and not self._raw
            and not self._skips_space
            and self._beginnings.isdisjoint(text)
            and not (self._holds_space and text[-1].isspace())
            and self._state is not _State.CALL
            and not self._awaits_call
            and not self._channels[self._state].holds
        )

    def _show_plain(self, text: str) -> ChatEvent:
        self._ledger.note(text, None)
        self._start += len(text)
        if self._state is _State.THINKING:
            self._reasoning_tokens += 1
            return ReasoningDelta(text)
        return TextDelta(text)

    def _read(self, text: str, score: TokenScore | None) -> Iterator[ChatEvent]:
        self._ledger.note(text, score)
        self._raw += text
        moved = True
        while moved and not self._stopped:
            if self._skips_space:
                self._consume(len(self._raw) - len(self._raw.lstrip()))
                self._skips_space = not self._raw
            if self._state is _State.CALL:
                end = self._call[1] if self._call else ""
                at = self._raw.find(end) if end else -1
                moved = at >= 0
                if moved:
                    yield from self._end_call(self._consume(at), self._consume(len(end)))
                continue
            if self._awaits_call and not self._raw.startswith(self._opening):
                moved = self._begin_call()
                continue
            at, mark, state = self._next_marker()
            moved = bool(mark)
            if mark:
                yield from self._show(at)
                if not self._stopped:
                    self._leave(mark, state)
            else:
                marks = [mark for mark, _ in self._edges()]
                yield from self._show(len(self._raw) - overlap(self._raw, marks))

    @property
    def _awaits_call(self) -> bool:
        """A forced call comes first, unless the thoughts do."""
        return self._home is _State.CALL and self._state is _State.ANSWER

    @property
    def _opening(self) -> str:
        return self._markup.thinking[0] if self._markup.thinking else ""

    def _begin_call(self) -> bool:
        """Once it is clear that no thoughts begin here."""
        if not self._opening.startswith(self._raw):
            self._state = _State.CALL
        return self._state is _State.CALL

    def _edges(self) -> Iterator[tuple[str, _State]]:
        """The markers that end the present state, and where each leads."""
        if self._markup.thinking:
            opening, closing = self._markup.thinking
            if self._state is _State.ANSWER:
                yield opening, _State.THINKING
            else:
                yield closing, self._home
        if self._call and self._call[0]:
            yield self._call[0], _State.CALL

    def _next_marker(self) -> tuple[int, str, _State]:
        hits = [
            (at, mark, state) for mark, state in self._edges() if (at := self._raw.find(mark)) >= 0
        ]
        return min(hits, key=lambda hit: hit[0], default=(0, "", self._state))

    def _leave(self, mark: str, state: _State) -> None:
        space = self._channels[self._state].trim()
        self._consume(len(mark))
        if state is _State.CALL:
            if self._home is _State.ANSWER:  # else the call comes after the thoughts, not amid
                self._call_from, self._call_space = self._state, space
            self._state = state
        else:
            self._enter(state)

    def _enter(self, state: _State) -> None:
        self._state = state
        self._skips_space = True

    def _end_call(self, body: str, end: str) -> Iterator[ChatEvent]:
        calls = self._parse(body, self._tools)
        if calls:
            for call in calls[: self._most_calls - self._calls]:
                yield ToolCallDelta(self._calls, call)
                self._calls += 1
            self._enter(_State.ANSWER)
        else:
            # Text that looks like a call but is none is text, as it stood.
            opening = self._call[0] if self._call else ""
            text = opening + body + end
            self._state = self._call_from
            yield from self._feed(*self._call_space, Span(text, self._start - len(text)))

    def _resolve(self) -> Iterator[ChatEvent]:
        """The raw text is complete: what is left of it can't become a marker any more."""
        if self._state is _State.CALL and not self._stopped:
            yield from self._end_call(self._consume(len(self._raw)), "")
        if not self._stopped:
            yield from self._show(len(self._raw))

    def _show(self, length: int) -> Iterator[ChatEvent]:
        start = self._start
        yield from self._feed(Span(self._consume(length), start))

    def _feed(self, *spans: Span) -> Iterator[ChatEvent]:
        yield from self._deltas(self._state, self._channels[self._state].feed(spans))

    def _deltas(self, state: _State, spans: list[Span]) -> Iterator[ChatEvent]:
        text = "".join(span.text for span in spans)
        if text and state is _State.THINKING:
            yield ReasoningDelta(text)
        elif text:
            yield TextDelta(text, tuple(score for s in spans for score in self._ledger.due(s)))

    def _consume(self, length: int) -> str:
        text, self._raw = self._raw[:length], self._raw[length:]
        self._start += length
        return text

    def _finish(self, reason: FinishReason) -> Iterator[ChatEvent]:
        for state, channel in self._channels.items():
            yield from self._deltas(state, channel.flush())
        if cut := tuple(self._ledger.rest()):
            yield TextDelta("", cut)
        self.finished = True
        usage = Usage(
            prompt_tokens=self._prompt.total,
            completion_tokens=self._completion_tokens,
            cached_tokens=self._prompt.cached,
            reasoning_tokens=self._reasoning_tokens,
        )
        yield Finished("tool_calls" if self._calls and reason == "stop" else reason, usage)
