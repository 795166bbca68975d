"""Where a fault came from, for the log."""


class Fault(Exception):
    """Stands for an exception of the kind that it names."""


def wordless(error: BaseException) -> Fault:
    """The kinds of the exceptions and their places in the code, without what they say: that can
    hold parts of a prompt.
    """
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    fault = Fault(type(error).__name__).with_traceback(error.__traceback__)
    fault.__cause__ = wordless(cause) if cause else None
    return fault


def kind(error: BaseException) -> str:
    """What clients are told of a fault nobody foresaw: one of a batch goes to all who are in it,
    and its words may be another's prompt.
    """
    return type(error).__name__
