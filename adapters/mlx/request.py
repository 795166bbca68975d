"""One request on its way through the batch. Worker thread only."""

from dataclasses import dataclass

from mlx_lm.generate import GenerationBatch

from adapters.mlx import prompt
from adapters.mlx.detokenizer import Detokenizer
from adapters.mlx.grammar import Constraint
from adapters.mlx.mailbox import Submit
from adapters.mlx.model import LoadedModel
from adapters.mlx.sampling import Processor, Sampler, make_processors, make_sampler
from adapters.mlx.scoring import prompt_scores, score
from domain.chat import ChatCommand, TextCommand
from domain.errors import ContextOverflow, InvalidRequest
from domain.outputs import Echo, End, EngineOutput, Piece, PromptProgress, TokenScore


@dataclass(slots=True, eq=False)
class Request:
    """Prompt tokens in, outputs out."""

    submit: Submit
    model: LoadedModel
    tokens: list[int]
    max_tokens: int
    opens_thinking: bool
    sampler: Sampler
    processors: list[Processor]
    constraint: Constraint | None
    detokenizer: Detokenizer
    uid: int = -1  # the BatchGenerator's name for it, once it runs

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
        processors = make_processors(sampling, len(read.tokens), model.vocabulary_size)
        constraint = _constraint(command, model, read)
        return cls(
            submit,
            model,
            read.tokens,
            room if sampling.max_tokens is None else min(sampling.max_tokens, room),
            read.opens_thinking,
            make_sampler(sampling),
            [*processors, constraint] if constraint else processors,
            constraint,
            model.vocabulary.detokenizer(starts_turn=is_chat),
        )

    @property
    def kv_tokens(self) -> int:
        """The most tokens it may come to hold in the KV cache."""
        return len(self.tokens) + self.max_tokens

    def progress(self, processed: int) -> PromptProgress:
        return PromptProgress(processed, len(self.tokens), opens_thinking=self.opens_thinking)

    def echo(self) -> list[EngineOutput]:
        """The prompt, for commands that want it back."""
        command = self.submit.command
        if not isinstance(command, TextCommand) or not command.echo:
            return []
        vocabulary, count = self.model.vocabulary, command.sampling.top_logprobs
        tokens = self.tokens if command.prompt else []
        if isinstance(command.prompt, str) and tokens[:1] == [self.model.tokenizer.bos_token_id]:
            tokens = tokens[1:]  # the tokenizer put it there, not the client
        raw = b"".join(vocabulary.bytes_of(token) for token in tokens)
        if count is None or not tokens:
            return [Echo(raw.decode("utf-8", "replace"))]
        scores = prompt_scores(self.model.network, vocabulary, tokens, count)
        return [Echo(raw.decode("utf-8", "replace"), scores)]

    def outputs(self, response: GenerationBatch.Response) -> list[EngineOutput]:
        """What one token of the batch means for this request.

        Raises InvalidRequest when a grammar leads where no text can follow.
        """
        if self.constraint and self.constraint.error:
            reason = f"The grammar can't go on: {self.constraint.error}"
            raise InvalidRequest(reason, "response_format")
        if response.finish_reason == "stop":  # the token is the model's end mark, not text
            return [Piece(""), End("stop", self.detokenizer.finish())]
        piece = Piece(self.detokenizer.add(response.token), self._score(response))
        if self.constraint and self.constraint.complete:
            return [piece, End("stop", self.detokenizer.finish())]
        if response.finish_reason == "length":
            return [piece, End("length", self.detokenizer.finish())]
        return [piece]

    def _score(self, response: GenerationBatch.Response) -> TokenScore | None:
        count = self.submit.command.sampling.top_logprobs
        if count is None:
            return None
        return score(self.model.vocabulary, response.token, response.logprobs, count)


def _constraint(
    command: ChatCommand | TextCommand, model: LoadedModel, read: prompt.Prompt
) -> Constraint | None:
    """Raises InvalidRequest when the grammar can't be compiled."""
    if isinstance(command, TextCommand) or command.constraint is None:
        return None
    tokenizer = model.tokenizer
    one_token = tokenizer.has_thinking and len(tokenizer.think_start_tokens) == 1
    return Constraint(
        model.grammars.compile(command.constraint, command.tools),
        model.vocabulary,
        len(read.tokens),
        thinking_ends=tokenizer.think_end or "",
        opens_thinking=read.opens_thinking,
        thinking_starts=tokenizer.think_start_id if read.may_think and one_token else None,
    )
