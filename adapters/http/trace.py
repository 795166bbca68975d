"""Where a fault came from, for the log."""

import traceback


def trace(error: BaseException) -> str:
    """Kinds of exceptions and places in the code, without what the exceptions say: that can hold
    parts of a prompt.
    """
    lines = []
    cause: BaseException | None = error
    while cause:
        lines += [f"{type(cause).__name__}, raised here (last call last):\n"]
        lines += traceback.format_tb(cause.__traceback__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "".join(lines).rstrip()
