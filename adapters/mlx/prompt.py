"""Commands into prompt tokens: the chat template, with what templates are known to refuse."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper
from pydantic_core import from_json

from adapters.mlx.markup import tool_to_dict
from domain.batching import shared_prefix
from domain.chat import ChatCommand, JsonValue, Message, TextCommand, require_text
from domain.errors import InvalidRequest

# Clients may steer these and nothing else: other variables of a template can break the
# conversation open (vLLM CVE-2025-62426 and its kind).
TEMPLATE_OPTIONS = frozenset({"enable_thinking", "thinking", "reasoning_effort"})

# How families mark a gap to fill: what stands before the text that comes first, between, and
# at the end; and whether the text before the gap comes first.
_FILL_IN_THE_MIDDLE = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", True),  # Qwen, Granite, Portico's demo
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", True),  # StarCoder
    ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>", True),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", True),  # noqa: RUF001 - DeepSeek
    ("▁<PRE>", "▁<SUF>", "▁<MID>", True),  # Code Llama
    ("[SUFFIX]", "[PREFIX]", "", False),  # Codestral
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """tokens: never empty. opens_thinking: the template ended inside the thoughts.
    may_think: the request asked for thoughts. boundaries: how many tokens the messages are, without
    what the template puts before the answer; the next turn of a chat begins with these for sure.
    """

    tokens: list[int]
    opens_thinking: bool = False
    may_think: bool = False
    boundaries: tuple[int, ...] = ()


def read(
    tokenizer: TokenizerWrapper,
    command: ChatCommand | TextCommand,
    *,
    with_boundaries: bool = False,
) -> Prompt:
    """Raises InvalidRequest for what the model's template or tokenizer can't take."""
    if isinstance(command, TextCommand):
        if command.suffix is not None:
            return Prompt(_gap_tokens(tokenizer, command.prompt, command.suffix))
        return Prompt(_text_tokens(tokenizer, command.prompt))
    options = _options(tokenizer, command.template_options)
    text = _render(tokenizer, command, options)
    opening = tokenizer.think_start
    opens_thinking = opening is not None and text.rstrip().endswith(opening)
    may_think = bool(options.get("enable_thinking") or options.get("thinking"))
    tokens = tokenizer.encode(text, add_special_tokens=False)
    boundaries = _boundaries(tokenizer, command, options, tokens) if with_boundaries else ()
    return Prompt(tokens, opens_thinking, may_think, boundaries)


def _gap_tokens(tokenizer: TokenizerWrapper, prompt: str | Sequence[int], suffix: str) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    for first, between, end, prompt_first in _FILL_IN_THE_MIDDLE:
        if all(mark in vocabulary for mark in (first, between, end) if mark):
            before = _plain_tokens(tokenizer, prompt)
            after = _plain_tokens(tokenizer, suffix)
            one, other = (before, after) if prompt_first else (after, before)
            marks = [[vocabulary[mark]] if mark else [] for mark in (first, between, end)]
            return [*marks[0], *one, *marks[1], *other, *marks[2]]
    raise InvalidRequest(
        "This model has no fill-in-the-middle tokens, so it can't take a `suffix`.", "suffix"
    )


def _plain_tokens(tokenizer: TokenizerWrapper, text: str | Sequence[int]) -> list[int]:
    if isinstance(text, str):
        encoded: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return encoded
    return _text_tokens(tokenizer, text) if text else []


def _text_tokens(tokenizer: TokenizerWrapper, prompt: str | Sequence[int]) -> list[int]:
    if not isinstance(prompt, str):
        if any(not 0 <= token < len(tokenizer) for token in prompt):
            raise InvalidRequest("`prompt` holds a token id outside the vocabulary.", "prompt")
        tokens = list(prompt)
    else:
        tokens = tokenizer.encode(prompt)
    if not tokens:  # an empty prompt: begin where texts begin
        start = tokenizer.bos_token_id
        tokens = [tokenizer.eos_token_id if start is None else start]
    return tokens


def _boundaries(
    tokenizer: TokenizerWrapper,
    command: ChatCommand,
    options: dict[str, JsonValue],
    tokens: list[int],
) -> tuple[int, ...]:
    try:
        messages = _render(tokenizer, command, options | {"add_generation_prompt": False})
    except InvalidRequest:
        return ()  # some templates insist on an answer to come
    shared = shared_prefix(tokenizer.encode(messages, add_special_tokens=False), tokens)
    return (shared,) if shared else ()


def _render(
    tokenizer: TokenizerWrapper, command: ChatCommand, options: dict[str, JsonValue]
) -> str:
    require_text(command.messages)
    if not tokenizer.has_chat_template:
        raise InvalidRequest(
            f"The model `{command.model}` has no chat template; use /v1/completions.", "model"
        )
    tools = [tool_to_dict(tool) for tool in command.tools] or None
    refusal: Exception | None = None
    for messages in _spellings(command.messages):
        try:
            return _apply(tokenizer, messages, tools, options)
        except (TemplateError, TypeError, ValueError) as error:
            refusal = refusal or error
    raise InvalidRequest(
        f"The model's chat template refuses these messages: {refusal}", "messages"
    ) from refusal


def _apply(
    tokenizer: TokenizerWrapper,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    options: dict[str, JsonValue],
) -> str:
    """The template as its makers wrote it.

    mlx-lm's wrapper would set enable_thinking for every family that thinks. We leave it to the
    template's own default, and so call the tokenizer behind it, but for the models for which
    mlx-lm brings a template of its own (`_chat_template`).
    """
    own = tokenizer if tokenizer._chat_template else tokenizer._tokenizer
    text: str = own.apply_chat_template(
        messages, tools=tools, tokenize=False, **({"add_generation_prompt": True} | options)
    )
    return text


def _options(tokenizer: TokenizerWrapper, options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The options as this model's template knows them.

    An effort switches thoughts on and off in templates that know no more. Raises InvalidRequest
    for what would change nothing though it should.
    """
    for name in options:
        if name not in TEMPLATE_OPTIONS:
            allowed = ", ".join(sorted(TEMPLATE_OPTIONS))
            raise InvalidRequest(
                f"`{name}` can't be set in `chat_template_kwargs`; known: {allowed}.",
                "chat_template_kwargs",
            )
    for name, kind in (("enable_thinking", bool), ("thinking", bool), ("reasoning_effort", str)):
        if not isinstance(options.get(name), kind | None):
            raise InvalidRequest(f"`{name}` must be a {kind.__name__}.", "chat_template_kwargs")
    known = _variables(tokenizer)
    switch = next((name for name in ("enable_thinking", "thinking") if name in known), None)
    given = dict(options)
    effort = given.get("reasoning_effort")
    if effort is not None and "reasoning_effort" not in known:
        del given["reasoning_effort"]
        given.setdefault("enable_thinking", effort not in ("none", "minimal"))
    wanted = given.pop("thinking", given.pop("enable_thinking", None))
    if wanted is not None and switch:
        given[switch] = wanted
    elif wanted:
        param = "chat_template_kwargs" if effort is None else "reasoning_effort"
        raise InvalidRequest("This model's chat template knows no thinking.", param)
    return given


def _variables(tokenizer: TokenizerWrapper) -> frozenset[str]:
    """Those of our options that the model's template looks at."""
    if tokenizer._chat_template:  # mlx-lm's own, whose one switch its wrapper knows
        return frozenset({"enable_thinking"})
    template = tokenizer.chat_template
    source = template if isinstance(template, str) else json.dumps(template)
    return frozenset(name for name in TEMPLATE_OPTIONS if re.search(rf"\b{name}\b", source))


def _spellings(messages: Sequence[Message]) -> Iterator[list[dict[str, Any]]]:
    """The conversation as it is, then in ways that stricter templates take.

    Some want ids of nine letters and digits (Mistral); some want arguments as text and not as
    an object; some know no system role, or insist on user and assistant taking turns.
    """
    yield [_to_dict(message, parse=True) for message in messages]
    yield _with_short_ids([_to_dict(message, parse=True) for message in messages])
    yield [_to_dict(message, parse=False) for message in messages]
    yield _folded([_to_dict(message, parse=True) for message in messages])


def _to_dict(message: Message, *, parse: bool) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.name:
        turn["name"] = message.name
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.answers:
        turn["tool_call_id"] = message.answers
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": _arguments(call.arguments) if parse else call.arguments,
                },
            }
            for call in message.tool_calls
        ]
    return turn


def _arguments(text: str) -> Any:
    """An object where the text is one; histories hold empty and broken arguments too."""
    try:
        value = from_json(text)  # which stops at a depth of 200, where templates don't yet
    except ValueError:
        return text or {}
    return value if isinstance(value, dict) else text


def _with_short_ids(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    short: dict[str, str] = {}
    for turn in turns:
        for call in turn.get("tool_calls", []):
            call["id"] = short.setdefault(call["id"], f"call{len(short):05}")
        if turn.get("tool_call_id") in short:
            turn["tool_call_id"] = short[turn["tool_call_id"]]
    return turns


def _folded(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """System messages into the first user turn, neighbours of one role into one turn."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [turn for turn in turns if turn["role"] != "system"]
    if system:
        if rest and rest[0]["role"] == "user":
            rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
        else:
            rest.insert(0, {"role": "user", "content": system})
    folded: list[dict[str, Any]] = []
    for turn in rest:
        before = folded[-1] if folded else None
        if before and turn["role"] == before["role"] and turn["role"] in ("user", "assistant"):
            before["content"] = f"{before['content']}\n\n{turn['content']}"
            before.setdefault("tool_calls", []).extend(turn.get("tool_calls", []))
        else:
            folded.append(turn)
    return folded
