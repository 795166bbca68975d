"""One request on its way through the batch. Worker thread only."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from mlx_lm.generate import GenerationBatch

from adapters.mlx import prompt
from adapters.mlx.detokenizer import Detokenizer, Vocabulary
from adapters.mlx.mailbox import Submit
from adapters.mlx.model import LoadedModel
from adapters.mlx.sampling import Processor, Sampler, make_processors, make_sampler
from domain.chat import ChatCommand
from domain.errors import ContextOverflow, InvalidRequest
from domain.outputs import End, EngineOutput, Piece, PromptProgress, TokenScore

if TYPE_CHECKING:
    import numpy.typing as npt

_LEAST_LOGPROB = -9999.0  # what OpenAI writes for impossible tokens; JSON has no infinity


@dataclass(slots=True, eq=False)
class Request:
    """Prompt tokens in, outputs out."""

    submit: Submit
    tokens: list[int]
    max_tokens: int
    opens_thinking: bool
    sampler: Sampler
    processors: list[Processor]
    detokenizer: Detokenizer
    vocabulary: Vocabulary
    uid: int = field(default=-1)  # the BatchGenerator's name for it, once it runs

    @classmethod
    def prepare(cls, submit: Submit, model: LoadedModel, context_length: int) -> "Request":
        """Raises InvalidRequest or ContextOverflow: everything that can be refused is, here."""
        command = submit.command
        sampling = command.sampling
        if any(token >= model.vocabulary_size for token in sampling.logit_bias):
            raise InvalidRequest(
                f"`logit_bias` names a token id outside the vocabulary of "
                f"{model.vocabulary_size} tokens.",
                "logit_bias",
            )
        read = prompt.read(model.tokenizer, command)
        is_chat = isinstance(command, ChatCommand)
        room = context_length - len(read.tokens)
        if room <= 0:
            param = "messages" if is_chat else "prompt"
            raise ContextOverflow(len(read.tokens), context_length, param)
        return cls(
            submit,
            read.tokens,
            min(sampling.max_tokens or room, room),
            read.opens_thinking,
            make_sampler(sampling),
            make_processors(sampling, len(read.tokens), model.vocabulary_size),
            model.vocabulary.detokenizer(starts_turn=is_chat),
            model.vocabulary,
        )

    @property
    def kv_tokens(self) -> int:
        """The most tokens it may come to hold in the KV cache."""
        return len(self.tokens) + self.max_tokens

    def progress(self, processed: int) -> PromptProgress:
        return PromptProgress(processed, len(self.tokens), opens_thinking=self.opens_thinking)

    def outputs(self, response: GenerationBatch.Response) -> list[EngineOutput]:
        """What one token of the batch means for this request."""
        if response.finish_reason == "stop":  # the token is the model's end mark, not text
            return [Piece(""), End("stop", self.detokenizer.finish())]
        piece = Piece(self.detokenizer.add(response.token), self._score(response))
        if response.finish_reason == "length":
            return [piece, End("length", self.detokenizer.finish())]
        return [piece]

    def _score(self, response: GenerationBatch.Response) -> TokenScore | None:
        count = self.submit.command.sampling.top_logprobs
        if count is None:
            return None
        logprobs = np.array(response.logprobs.astype(mx.float32))
        likeliest = _likeliest(logprobs, count)
        alternatives = tuple(self._entry(int(token), logprobs) for token in likeliest)
        chosen = self._entry(response.token, logprobs)
        return TokenScore(chosen.token, chosen.raw, chosen.logprob, alternatives)

    def _entry(self, token: int, logprobs: "npt.NDArray[np.float32]") -> TokenScore:
        raw = self.vocabulary.bytes_of(token)
        logprob = max(float(logprobs[token]), _LEAST_LOGPROB)
        return TokenScore(raw.decode("utf-8", "replace"), raw, logprob)


def _likeliest(logprobs: "npt.NDArray[np.float32]", count: int) -> "npt.NDArray[np.int64]":
    """The ids of the `count` highest, in falling order."""
    count = min(count, len(logprobs))
    top = np.argpartition(-logprobs, count - 1)[:count] if count else np.array([], np.int64)
    return top[np.argsort(-logprobs[top], kind="stable")]
