"""One request on its way through the batch. Worker thread only."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import mlx.core as mx

from adapters.mlx import prompt
from adapters.mlx.detokenizer import Detokenizer
from adapters.mlx.grammar import Constraint
from adapters.mlx.mailbox import Submit
from adapters.mlx.model import LoadedModel
from adapters.mlx.sampling import SamplingRow, try_out
from adapters.mlx.scoring import prompt_scores, score
from domain.chat import ChatCommand, TextCommand
from domain.errors import ContextOverflow, InvalidRequest
from domain.outputs import Echo, End, EngineOutput, Piece, PromptProgress, TokenScore

_FORESIGHT = 256  # tokens; most of what may be generated never is, so only the next ones count


@dataclass(slots=True, eq=False)
class Request:
    """Prompt tokens in, outputs out.

    What has been generated belongs to it, so that it can leave the batch and go on later.
    """

    submit: Submit
    model: LoadedModel
    tokens: list[int]
    max_tokens: int
    opens_thinking: bool
    row: SamplingRow
    constraint: Constraint | None
    detokenizer: Detokenizer
    boundaries: tuple[int, ...] = ()  # tokens of the prompt after which messages end
    cached: int = 0  # tokens of the prompt that did not have to be computed
    generated: list[int] = field(default_factory=list)
    preempted: bool = False
    _shown: int = -1  # the prompt tokens that its reader knows to be processed
    _scores: list[TokenScore] = field(default_factory=list)  # of the prompt, so far
    _scoring: Iterator[list[TokenScore]] | None = None

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
        read = prompt.read(model.tokenizer, command, with_boundaries=model.exact_states)
        is_chat = isinstance(command, ChatCommand)
        room = context_length - len(read.tokens)
        if room <= 0:
            param = "messages" if is_chat else "prompt"
            raise ContextOverflow(len(read.tokens), context_length, param)
        row = SamplingRow(sampling, read.tokens, (), model.vocabulary_size)
        try_out(row, model.vocabulary_size)
        return cls(
            submit,
            model,
            read.tokens,
            room if sampling.max_tokens is None else min(sampling.max_tokens, room),
            read.opens_thinking,
            row,
            _constraint(command, model, read),
            model.vocabulary.detokenizer(starts_turn=is_chat),
            read.boundaries,
        )

    @property
    def known(self) -> list[int]:
        """The prompt, and what has been generated."""
        return self.tokens + self.generated

    def since(self, count: int) -> list[int]:
        """What is known, but for its first `count` tokens."""
        if count < len(self.tokens):
            return self.known[count:]
        return self.generated[count - len(self.tokens) :]

    @property
    def scope(self) -> str:
        """Prompts are shared only within one."""
        return self.submit.command.cache_scope

    @property
    def wants_scores(self) -> bool:
        return self.submit.command.sampling.top_logprobs is not None

    @property
    def left(self) -> int:
        """Tokens that it may still generate."""
        return self.max_tokens - len(self.generated)

    @property
    def held(self) -> int:
        """Tokens in the KV cache, once its prompt is computed."""
        return len(self.tokens) + len(self.generated)

    @property
    def soon(self) -> int:
        """Tokens that it is about to hold."""
        return self.held + min(self.left, _FORESIGHT)

    def begin(self) -> list[EngineOutput]:
        """What is said before it joins the batch for the first time: to be called again while it
        `is_beginning`, as scores of a long prompt come a slice at a time.
        """
        return [] if self.preempted else [*self.progress(0), *self._echo()]

    @property
    def is_beginning(self) -> bool:
        """It holds caches, and is not in the batch yet."""
        return self._scoring is not None

    def preempt(self) -> None:
        """It has left the batch, and will go on from the last token that was said."""
        self.preempted = True
        self.row.rewind(self.tokens, self.generated)

    def progress(self, processed: int) -> list[EngineOutput]:
        """Empty for what was said before, as when the prompt is computed again."""
        processed = min(processed, len(self.tokens))
        if processed <= self._shown:
            return []
        self._shown = processed
        total = len(self.tokens)
        return [PromptProgress(processed, total, self.cached, self.opens_thinking)]

    def _echo(self) -> list[EngineOutput]:
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
        if self._scoring is None:
            caches = self.model.make_caches()
            self._scoring = prompt_scores(self.model.network, caches, vocabulary, tokens, count)
        if (scores := next(self._scoring, None)) is not None:
            self._scores += scores
            return []
        self._scoring = None
        return [Echo(raw.decode("utf-8", "replace"), tuple(self._scores))]

    def outputs(self, token: int, logprobs: mx.array | None) -> list[EngineOutput]:
        """What one token of the batch means for this request. logprobs: [vocabulary], if wanted.

        Raises InvalidRequest when a grammar leads where no text can follow.
        """
        if self.constraint and self.constraint.error:
            reason = f"The grammar can't go on: {self.constraint.error}"
            raise InvalidRequest(reason, "response_format")
        self.generated.append(token)
        if token in self.model.tokenizer.eos_token_ids:  # the model's end mark is not text
            return [Piece(""), End("stop", self.detokenizer.finish())]
        piece = Piece(self.detokenizer.add(token), self._score(token, logprobs))
        if self.constraint and self.constraint.complete:
            return [piece, End("stop", self.detokenizer.finish())]
        if not self.left:
            return [piece, End("length", self.detokenizer.finish())]
        return [piece]

    def _score(self, token: int, logprobs: mx.array | None) -> TokenScore | None:
        count = self.submit.command.sampling.top_logprobs
        if count is None or logprobs is None:
            return None
        return score(self.model.vocabulary, token, logprobs, count)


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
        thinking_ends=tokenizer.think_end or "",
        opens_thinking=read.opens_thinking,
        thinking_starts=tokenizer.think_start_id if read.may_think and one_token else None,
    )
