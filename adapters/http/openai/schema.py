"""What both OpenAI dialects share on the wire: sampling fields and usage."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from adapters.http.wire import AnyJson, Entries, Items, WireModel
from domain.chat import Sampling
from domain.errors import InvalidRequest

MAX_STOPS = 4

# Parameters that change the answer, of OpenAI's API and of the servers its clients also talk to
# (vLLM, SGLang, llama.cpp, mlx_lm.server), that Portico does not honour, each with the values that
# change nothing. Anything else is refused by name. A request that has a field of that name
# honours it: what belongs to chat is refused in completions, and the other way round.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "adapters": (),
    "add_generation_prompt": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "custom_logit_processor": (),
    "documents": ([],),
    "draft_model": (),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "ebnf": (),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "grammar": ("",),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "json_schema": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "lora": ([],),
    "lora_path": (),
    "max_completion_tokens": (),
    "min_keep": (0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "modalities": (["text"],),
    "moderation": (),
    "n_predict": (-1,),
    "n_probs": (0,),
    "no_stop_trim": (False,),
    "post_sampling_probs": (False,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "reasoning_effort": ("none",),
    "reasoning_format": ("auto", "deepseek"),
    "regex": (),
    "repeat_last_n": (-1,),
    "repeat_penalty": (1,),
    "repetition_context_size": (),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "role_mapping": (),
    "samplers": (),
    "separate_reasoning": (True,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_regex": (),
    "stop_token_ids": ([],),
    "structural_tag": (),
    "structured_outputs": (),
    "suffix": ("",),
    "t_max_predict_ms": (0,),
    "thinking_token_budget": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_a": (0,),
    "top_logprobs": (),
    "top_n_sigma": (-1, 0),
    "truncate_prompt_tokens": (),
    "trust_remote_code": (False,),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
    "xtc_probability": (0,),
}


def _at_most_four(stops: str | list[str] | None) -> str | list[str] | None:
    if isinstance(stops, list) and len(stops) > MAX_STOPS:
        raise PydanticCustomError("too_long", f"at most {MAX_STOPS} stop strings are allowed")
    return stops


class StreamOptions(WireModel):
    include_usage: bool | None = None


class SamplingFields(WireModel):
    """What chat and completion requests have in common. null means absent."""

    model: str | None = None
    n: int | None = Field(None, ge=1, le=128)
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, description="Extension; 0 and -1 mean all")
    min_p: float | None = Field(None, ge=0, le=1, description="Extension")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[str | Items[str] | None, AfterValidator(_at_most_four)] = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=100, description="Extension")
    logit_bias: Entries[Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Accepted because they change nothing here.
    metadata: Entries[str] | None = None
    prediction: dict[str, AnyJson] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    user: str | None = None

    include_timings: bool | None = Field(
        None, description="Extension: `timings` on the answer, or on the last chunk that has data"
    )
    timings_per_token: bool | None = Field(None, description="llama.cpp's name for the same")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        given = _UNSUPPORTED.keys() & body.keys() if isinstance(body, dict) else ()
        for name in sorted(given - cls.model_fields.keys() if given else ()):
            if body[name] is not None and body[name] not in _UNSUPPORTED[name]:
                raise refusal(
                    name,
                    f"`{name}` is not supported by this server with that value",
                    code="unsupported_parameter",
                )
        return body

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> "SamplingFields":
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", "`stream_options` is only allowed with `stream`")
        return self

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def includes_timings(self) -> bool:
        return bool(self.include_timings or self.timings_per_token)

    def sampling(self, max_tokens: int | None, top_logprobs: int | None) -> Sampling:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
        }
        return Sampling(
            max_tokens=max_tokens,
            seed=self.seed,
            stop=tuple(stop for stop in stops if stop),  # clients send "" for none
            logit_bias=_token_ids(self.logit_bias or {}),
            top_logprobs=top_logprobs,
            **{name: value for name, value in given.items() if value is not None},
        )


_TOKEN_ID = re.compile("[0-9]{1,19}")  # int() raises for more than 4,300 digits


def _token_ids(biases: dict[str, float]) -> dict[int, float]:
    if not all(_TOKEN_ID.fullmatch(token) for token in biases):
        raise InvalidRequest("`logit_bias` keys must be token ids.", "logit_bias")
    return {int(token): bias for token, bias in biases.items()}


def refusal(param: str, message: str, code: str | None = "invalid_value") -> PydanticCustomError:
    """An error that names its parameter itself, and carries its code on the wire."""
    return PydanticCustomError("refused", "{text}", {"text": message, "param": param, "code": code})


class PromptTokensDetails(WireModel):
    cached_tokens: int = Field(ge=0)


class CompletionTokensDetails(WireModel):
    reasoning_tokens: int = Field(ge=0)


class UsageBody(WireModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TimingsBody(WireModel):
    """As llama.cpp's server has it: times in milliseconds, `prompt_n` without `cache_n`. And what
    came before: `queue_ms` until a place in the batch, `ttft_ms` until the first token.
    """

    queue_ms: float
    ttft_ms: float
    total_ms: float
    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


ChoiceReason = Literal["stop", "length", "tool_calls"]
