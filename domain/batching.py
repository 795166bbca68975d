"""Which waiting requests join the running batch."""

from collections.abc import Sequence


def admit(waiting: Sequence[int], slots: int, kv_tokens: int) -> int:
    """How many requests, from the head of the queue, fit.

    waiting: the tokens each request may come to hold (prompt and answer), in order of arrival.
    slots: free places in the batch. kv_tokens: free room in the KV cache, in tokens.
    The longest prefix that fits: no overtaking, so no starvation.
    """
    taken = 0
    for tokens in waiting[: max(slots, 0)]:
        if tokens > kv_tokens:
            break
        kv_tokens -= tokens
        taken += 1
    return taken
