"""Continue a text, without a chat template."""

from collections.abc import AsyncGenerator

from application.answer import UNWATCHED, Watch, answer
from application.model_pool import ModelPool
from domain.chat import TextCommand
from domain.events import ChatEvent
from domain.outputs import Markup
from domain.splitter import Splitter


class CompleteText:
    """The model's text as it is, whatever markup stands in it."""

    def __init__(self, models: ModelPool, watch: Watch = UNWATCHED) -> None:
        self._models = models
        self._watch = watch

    def __call__(self, command: TextCommand) -> AsyncGenerator[ChatEvent, None]:
        """The events of one continuation, as they come. Raises any DomainError."""
        return answer(
            self._models,
            command,
            lambda markup: Splitter(Markup(), command.sampling.stop),
            self._watch,
        )
