"""Answer a conversation."""

from collections.abc import AsyncGenerator

from application.answer import UNWATCHED, Watch, answer
from application.model_pool import ModelPool
from domain.chat import ChatCommand, RequiredToolCall
from domain.events import ChatEvent
from domain.splitter import Splitter


class CompleteChat:
    """Thoughts, tool calls and text, told apart by the markup of the model's family."""

    def __init__(self, models: ModelPool, watch: Watch = UNWATCHED) -> None:
        self._models = models
        self._watch = watch

    def __call__(self, command: ChatCommand) -> AsyncGenerator[ChatEvent, None]:
        """The events of one answer, as they come. Raises any DomainError."""
        return answer(
            self._models,
            command,
            lambda markup: Splitter(
                markup,
                command.sampling.stop,
                command.tools,
                parallel_tool_calls=command.parallel_tool_calls,
                forced_call=isinstance(command.constraint, RequiredToolCall),
            ),
            self._watch,
        )
