"""Everything that can go wrong, as one tree.

DomainError
├── InvalidRequest          the request can never work as it is (param names the culprit)
│   └── ContextOverflow     the prompt is longer than the model's context
├── ModelNotFound           no such model in the catalog
├── ModelTooLarge           the model can never fit the memory budget
├── ServerBusy              too many are waiting; come back in retry_after seconds
├── EngineFailed            the engine broke, or could not be loaded
│   └── ModelUnusable       the model on disk is one that can't be loaded
└── ShuttingDown            the server is on its way out
"""


class DomainError(Exception):
    """The root of the tree. The message is written for the client's eyes."""


class InvalidRequest(DomainError):
    """The request can never work as it is; `param` names the field to change."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextOverflow(InvalidRequest):
    """The prompt is longer than the model's context. Counts are in tokens."""

    def __init__(self, prompt_tokens: int, context_length: int, param: str = "messages") -> None:
        super().__init__(
            # litellm recognises overflows by this sentence (BerriAI/litellm#10793).
            f"This model's maximum context length is {context_length} tokens. "
            f"However, your prompt has {prompt_tokens} tokens and leaves no room for an answer. "
            "Please shorten it.",
            param,
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class ModelNotFound(DomainError):
    """No such model in the catalog."""

    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model}` does not exist or is not available on this server.")
        self.model = model


class ModelTooLarge(DomainError):
    """The model can never fit the memory budget. Sizes are in bytes."""

    def __init__(self, model: str, need: int, budget: int) -> None:
        super().__init__(
            f"The model `{model}` needs {need / 1e9:.2f} GB of memory and the budget is "
            f"{budget / 1e9:.2f} GB. Raise `memory_budget_gb` or choose a smaller model."
        )
        self.need = need
        self.budget = budget


class ServerBusy(DomainError):
    """Too many are waiting; come back in `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineFailed(DomainError):
    """The engine broke, or could not be loaded."""


class ModelUnusable(EngineFailed):
    """The model on disk is damaged, or of a kind that can't be loaded. Trying again won't help."""


class ShuttingDown(DomainError):
    """The server is on its way out."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down.")
