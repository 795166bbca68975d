"""Output constraints into llguidance matchers, and matchers into logits processors."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from mlx_lm.tokenizer_utils import TokenizerWrapper

from adapters.mlx.detokenizer import Vocabulary
from application.remembered import Remembered
from domain.chat import (
    JsonObject,
    JsonSchema,
    JsonValue,
    Lark,
    OutputConstraint,
    Regex,
    RequiredToolCall,
    Tool,
)
from domain.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy.typing as npt

_CACHED_GRAMMARS = 64
_LONGEST_GRAMMAR = 200_000  # characters; the recursion of llguidance is bounded by this
_EXACT = 2**53  # beyond it llguidance, which counts in doubles, is inexact or never returns
_NO_TEXT = "NoExtensionBias"  # llguidance's word for a grammar without a sentence

# Compact: with free white space, weak weights fill the token limit with blanks.
_ANSWER_STYLE: dict[str, JsonValue] = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
}
# As chat templates write calls, and so as models have learned to.
_CALL_STYLE: dict[str, JsonValue] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


class GrammarCompiler:
    """Compiles for one tokenizer, and remembers what it compiled. Worker thread only."""

    def __init__(self, tokenizer: TokenizerWrapper, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._lexicon: LLTokenizer | None = None
        self._compiled: Remembered[str, LLMatcher] = Remembered(_CACHED_GRAMMARS)
        self._call_marks = _call_marks(tokenizer)

    def compile(self, constraint: OutputConstraint, tools: tuple[Tool, ...] = ()) -> LLMatcher:
        """A fresh matcher. Raises InvalidRequest with llguidance's reason.

        tools: what may be called in place of a JSON answer, where the family's calls are JSON.
        """
        try:
            grammar = _grammar(constraint, tools if self._call_marks else (), self._call_marks)
        except ValueError as error:
            raise _refusal(constraint, str(error)) from error
        if len(grammar) > _LONGEST_GRAMMAR:
            raise _refusal(constraint, f"it is longer than {_LONGEST_GRAMMAR} characters")
        matcher = self._compiled.get(grammar)
        if matcher is None:
            matcher = LLMatcher(self._known_tokens(), grammar, log_level=0)
            matcher.compute_bitmask()  # shows grammars that no text can keep
            if matcher.is_error():
                raise _refusal(constraint, _first_line(matcher.get_error()))
            matcher.reset()
            self._compiled.put(grammar, matcher)
        return matcher.deep_copy()

    def _known_tokens(self) -> LLTokenizer:
        """Made for the first constrained request: a large vocabulary takes up to a second."""
        if self._lexicon is None:
            self._lexicon = _make_lexicon(self._tokenizer, self._vocabulary_size)
        return self._lexicon


def _make_lexicon(tokenizer: TokenizerWrapper, size: int) -> LLTokenizer:
    """Every added token is a symbol of its own, under a name that no text has.

    Under its own name, text that spells it (a tool called `<tool_call>`, an enum of `<think>`)
    would be forced to be that token, which llguidance 1.9 then refuses to take.
    """
    backend = copy.copy(tokenizer._tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    whole = backend.to_str()
    ends = sorted(tokenizer.eos_token_ids) or None
    try:
        return LLTokenizer(_with_symbols(json.loads(whole)), n_vocab=size, eos_token=ends)
    except ValueError:  # merges that make an added token, say
        return LLTokenizer(whole, n_vocab=size, eos_token=ends)


def _with_symbols(description: dict[str, Any]) -> str:
    vocabulary = description["model"].get("vocab")
    for added in description["added_tokens"]:
        name = f"<|symbol {added['id']}|>"
        if isinstance(vocabulary, dict) and added["content"] in vocabulary:
            vocabulary[name] = vocabulary.pop(added["content"])
        elif isinstance(vocabulary, list) and added["id"] < len(vocabulary):
            vocabulary[added["id"]][0] = name
        added |= {"content": name, "special": True}
    return json.dumps(description)


def _call_marks(tokenizer: TokenizerWrapper) -> tuple[str, str] | None:
    """The Lark of what stands around a call, in families that write calls as JSON; else None."""
    if tokenizer.init_kwargs.get("tool_parser_type") != "json_tools":
        return None
    ids = (tokenizer.tool_call_start_tokens, tokenizer.tool_call_end_tokens)
    if any(len(tokens) != 1 for tokens in ids):
        return None  # to llguidance an added token is a symbol of its own, and text is not
    (start,), (end,) = ids
    return f'<[{start}]> "\\n"', f'"\\n" <[{end}]>'


def _first_line(error: str) -> str:
    """llguidance's reason; the grammar itself, in our own words, follows it."""
    reason = error.partition("\n")[0]
    return "no text can keep it" if reason == _NO_TEXT else reason


def _refusal(constraint: OutputConstraint, reason: str) -> InvalidRequest:
    param = "tools" if isinstance(constraint, RequiredToolCall) else "response_format"
    return InvalidRequest(f"The grammar of `{param}` can't be compiled: {reason}", param)


def _grammar(
    constraint: OutputConstraint, tools: tuple[Tool, ...], marks: tuple[str, str] | None
) -> str:
    match constraint:
        case JsonObject():
            return _json_grammar({"type": "object"}, tools, marks)
        case JsonSchema():
            return _json_grammar(constraint.schema, tools, marks)
        case Regex():
            return LLMatcher.grammar_from_regex(constraint.pattern)
        case Lark():
            return LLMatcher.grammar_from_lark(constraint.grammar)
        case RequiredToolCall():
            rules = ["start: call", *_call_rules(constraint.tools, marks)]
            return LLMatcher.grammar_from_lark("\n".join(rules))


def _json_grammar(
    schema: Mapping[str, JsonValue], tools: tuple[Tool, ...], marks: tuple[str, str] | None
) -> str:
    answer = f"answer: {_json(schema, _ANSWER_STYLE)}"
    rules = ["start: answer | call", answer, *_call_rules(tools, marks)]
    return LLMatcher.grammar_from_lark("\n".join(rules if tools else ["start: answer", answer]))


def _call_rules(tools: tuple[Tool, ...], marks: tuple[str, str] | None) -> Iterator[str]:
    """One call as a JSON object. Each schema is a document of its own, so its `$ref`s hold."""
    before, after = marks or ("", "")
    named = " | ".join(f"call_{n}" for n in range(len(tools)))
    yield f"call: {before} ({named}) {after}"
    for n, tool in enumerate(tools):
        opening = json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
        yield f'call_{n}: {opening} arguments_{n} "}}"'
        kinds = tool.parameters.get("type", "object")
        if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
            raise ValueError(f"the parameters of `{tool.name}` must be an object")
        yield f"arguments_{n}: {_json({**tool.parameters, 'type': 'object'}, _CALL_STYLE)}"


def _json(schema: Mapping[str, JsonValue], style: Mapping[str, JsonValue]) -> str:
    """Raises ValueError for numbers that llguidance can't take."""
    pending: list[JsonValue] = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, Sequence) and not isinstance(value, str):
            pending += value
        elif isinstance(value, int | float) and abs(value) > _EXACT:
            raise ValueError("numbers beyond 2^53 are not supported")
    return "%json " + json.dumps({**schema, "x-guidance": style})


class Constraint:
    """Lets through only what the grammar allows next.

    thinking_ends: what ends the thoughts of a model that thinks; the grammar begins after them.
    opens_thinking: the prompt ended inside the thoughts. thinking_starts: the token with which
    the model may open them itself, None when it may not.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: Vocabulary,
        *,
        thinking_ends: str = "",
        opens_thinking: bool = False,
        thinking_starts: int | None = None,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._thinking_ends = thinking_ends.encode()
        self._thinking = opens_thinking
        self._thinking_starts = None if opens_thinking else thinking_starts
        self._thoughts = b""

    @property
    def complete(self) -> bool:
        """The grammar is at its end: nothing can follow."""
        return not self._thinking and self._matcher.is_stopped()

    @property
    def error(self) -> str:
        """Why the grammar can't go on; empty while it can."""
        return _first_line(self._matcher.get_error())

    def step(self, token: int | None, allowed: "npt.NDArray[np.bool_]") -> None:
        """Take what came last, if anything did, and mask what may come next."""
        if token is not None:
            self.take(token)
        self.mask(allowed)

    def take(self, token: int) -> None:
        """The answer goes on with this token."""
        if self._thinking:
            self._thoughts += self._vocabulary.bytes_of(token)
            self._thinking = self._thinking_ends not in self._thoughts
        elif token == self._thinking_starts:
            self._thinking = True
        elif not self._matcher.is_stopped():
            self._matcher.consume_token(token)
        self._thinking_starts = None

    def mask(self, allowed: "npt.NDArray[np.bool_]") -> None:
        """Clear what may not come next. allowed: [vocabulary], all true."""
        if self._thinking or self._matcher.is_stopped():
            return
        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        bits = np.unpackbits(words, bitorder="little")[: len(allowed)].astype(np.bool_)
        allowed[:] = False
        allowed[: len(bits)] = bits
        if self._thinking_starts is not None:
            allowed[self._thinking_starts] = True
