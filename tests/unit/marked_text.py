"""Text as models write it, ways to cut it up, and a plain reading to compare the splitter with."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from domain.chat import Tool, ToolCall
from domain.events import ChatEvent, FinishReason
from domain.outputs import End, EngineOutput, Markup, Piece, PromptProgress, StopCause
from domain.splitter import Splitter

WEATHER = Tool("weather")
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'


def parse_calls(text: str, tools: tuple[Tool, ...]) -> tuple[ToolCall, ...]:
    """A JSON object with the name of a tool that was offered, and its arguments."""
    try:
        call = json.loads(text)
        name, arguments = call["name"], call["arguments"]
    except (ValueError, TypeError, KeyError):
        return ()
    if name not in [tool.name for tool in tools]:
        return ()
    return (ToolCall(f"call_{name}", name, json.dumps(arguments)),)


MARKUP = Markup(("<think>", "</think>"), ("<tool_call>", "</tool_call>"), parse_calls)
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
BROKEN_CALLS = (
    "",
    "{}",
    "not json",
    CALL[:-1],
    CALL.replace("weather", "unheard_of"),
    '{"name": ["weather"], "arguments": {}}',
)
STOPS = ("END", "\n\n", "</", "a", "ab", "abc", "b <", "é!", "<think>", "think", " ", "x y")
WORDS = ("a", "ab", "bc", "Hello", "é", "日本", "😀", "{", '"', "EN", "D", "END", "x", "y", "!")
SPACES = (" ", "\n", "\n\n", "\t", "\u3000")
LURES = ("<", "<t", "<thi", "</", "</thin", "<tool", "call>", "think>", "</tool_", ">")

plain_texts = st.lists(st.sampled_from(WORDS + SPACES + LURES), max_size=8).map("".join)
quiet_texts = st.lists(st.sampled_from(WORDS + SPACES), max_size=5).map("".join)
fragments = st.one_of(
    st.sampled_from(WORDS + SPACES + LURES),
    st.sampled_from(MARKERS),
    st.sampled_from([f"<tool_call>{body}</tool_call>" for body in (CALL, *BROKEN_CALLS)]),
    st.sampled_from(["<think>ab</think>", f"<tool_call>{CALL}", f"\n{CALL}\n"]),
    st.text(max_size=3),
)
raw_texts = st.lists(fragments, max_size=10).map("".join)
stop_strings = st.lists(
    st.one_of(st.sampled_from(STOPS), st.text(min_size=1, max_size=3)), max_size=3
).map(tuple)


@st.composite
def cut_up(draw: st.DrawFn, text: str) -> list[str]:
    """The text in pieces, of which some may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@dataclass(frozen=True)
class Setting:
    """What a splitter is told about the answer it is to read."""

    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = (WEATHER,)
    opens_thinking: bool = False
    parallel_tool_calls: bool = True
    cause: StopCause = "stop"
    markup: Markup = MARKUP


settings_of_answers = st.builds(
    Setting,
    stop=stop_strings,
    tools=st.sampled_from([(), (WEATHER,)]),
    opens_thinking=st.booleans(),
    parallel_tool_calls=st.booleans(),
    cause=st.sampled_from(["stop", "length"]),
    markup=st.just(MARKUP),
)


def split(
    pieces: Iterable[str | Piece], setting: Setting, *, left_over: str = ""
) -> list[ChatEvent]:
    """Feed the pieces, and the end, until the splitter has finished."""
    splitter = Splitter(
        setting.markup,
        setting.stop,
        setting.tools,
        parallel_tool_calls=setting.parallel_tool_calls,
    )
    prompt = PromptProgress(7, 7, cached=3, opens_thinking=setting.opens_thinking)
    said = [Piece(piece) if isinstance(piece, str) else piece for piece in pieces]
    events: list[ChatEvent] = []
    outputs: list[EngineOutput] = [prompt, *said, End(setting.cause, left_over)]
    for output in outputs:
        if not splitter.finished:
            events.extend(splitter.feed(output))
    return events


def squeeze(text: str) -> str:
    return "".join(text.split())


@dataclass
class Reading:
    """The whole text read at once, with the positions of the characters to be shown."""

    raw: str
    setting: Setting
    answer: list[int] = field(default_factory=list)
    thoughts: list[int] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        at, thinking, after_marker = 0, self.setting.opens_thinking, self.setting.opens_thinking
        while not self.stopped:
            channel = self.thoughts if thinking else self.answer
            found, marker = self._next_marker(at, thinking)
            while after_marker and at < found and self.raw[at].isspace():
                at += 1
            self._show(channel, range(at, found))
            if self.stopped or not marker:
                return
            at, after_marker = found + len(marker), True
            if marker != "<tool_call>":
                self._trim(channel)
                thinking = not thinking
                continue
            closing = self.raw.find("</tool_call>", at)
            end = closing if closing >= 0 else len(self.raw)
            calls = parse_calls(self.raw[at:end], self.setting.tools)
            at = min(end + len("</tool_call>"), len(self.raw))
            if calls:
                self._trim(channel)
                self.calls += calls
                self.stopped = not self.setting.parallel_tool_calls
                thinking = False
            else:
                self._show(channel, range(found, at))
                after_marker = False

    @property
    def text(self) -> str:
        return self._read(self.answer)

    @property
    def reasoning(self) -> str:
        return self._read(self.thoughts)

    @property
    def reason(self) -> FinishReason:
        cause = "stop" if self.stopped else self.setting.cause
        return "tool_calls" if self.calls and cause == "stop" else cause

    def _next_marker(self, at: int, thinking: bool) -> tuple[int, str]:
        markers = ["</think>" if thinking else "<think>"]
        markers += ["<tool_call>"] if self.setting.tools else []
        hits = [(self.raw.find(marker, at), marker) for marker in markers]
        return min((hit for hit in hits if hit[0] >= 0), default=(len(self.raw), ""))

    def _show(self, channel: list[int], positions: range) -> None:
        for position in positions:
            channel.append(position)
            text = self._read(channel)
            ended_by = [stop for stop in self.setting.stop if text.endswith(stop)]
            if ended_by:
                del channel[-max(map(len, ended_by)) :]
                self.stopped = True
                return

    def _trim(self, channel: list[int]) -> None:
        while channel and self.raw[channel[-1]].isspace():
            channel.pop()

    def _read(self, positions: Sequence[int]) -> str:
        return "".join(self.raw[position] for position in positions)
