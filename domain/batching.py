"""Which waiting requests join the running batch, and which must give their place up for a while.

A batch is padded to its longest request: `cost(tokens, rows)` is what the KV caches of so many
rows of so many tokens take, in bytes, and never falls when either grows.
"""

from collections.abc import Callable, Sequence

Cost = Callable[[int, int], int]


def admit(running: Sequence[int], waiting: Sequence[int], slots: int, cost: Cost, room: int) -> int:
    """How many requests, from the head of the queue, fit.

    running, waiting: the tokens that each holds, or will soon. slots: free places in the batch.
    room: bytes for all caches. The longest prefix that fits: no overtaking, so no starvation.
    """
    longest, rows = max(running, default=0), len(running)
    for taken, tokens in enumerate(waiting[: max(slots, 0)]):
        longest, rows = max(longest, tokens), rows + 1
        if cost(longest, rows) > room:
            return taken
    return min(len(waiting), max(slots, 0))


def keep(running: Sequence[int], cost: Cost, room: int) -> int:
    """How many of the running requests, oldest first, can go on; the others must wait again.

    The oldest always goes on, so that some request always comes to its end.
    """
    kept = len(running)
    while kept > 1 and cost(max(running[:kept]), kept) > room:
        kept -= 1
    return kept


_FEW = 8


def places(rows: int) -> int:
    """Of a batch whose shape seldom changes: a power of two, or from 8 on a multiple of 8."""
    return -(-rows // _FEW) * _FEW if rows > _FEW else 1 << max(rows - 1, 0).bit_length()


def await_company(full: bool, arrived: bool, waited: float, slice_seconds: float) -> bool:
    """Whether prompts wait for others to be computed with, where a slice takes as long for many
    as for one: while more keep coming, and no longer than it takes.

    full: no more could be computed in one go. arrived: one came in the last decode step. waited:
    seconds.
    """
    return arrived and not full and waited < slice_seconds


_OLDEST_EVERY = 4


def next_prompt(remaining: Sequence[int], turn: int) -> int:
    """Which of the waiting prompts gets the next slice of prefill; its place in the queue.

    remaining: the tokens that each has left, in order of arrival. turn: counts the slices.
    Short ones overtake the slices of long ones, but every fourth goes to the oldest, so that
    nobody starves.
    """
    if turn % _OLDEST_EVERY == _OLDEST_EVERY - 1:
        return 0
    return min(range(len(remaining)), key=lambda place: remaining[place])


def together(remaining: Sequence[int], first: int, room: int) -> tuple[int, ...]:
    """Which prompts are computed in one go with the `first`, padded to the longest of them.

    room: tokens, padding included. At most a quarter of what is computed may be padding.
    """
    chosen = [first]
    for place in sorted(range(len(remaining)), key=lambda place: remaining[place]):
        if place == first:
            continue
        lengths = [remaining[other] for other in (*chosen, place)]
        padded = max(lengths) * len(lengths)
        if padded <= room and sum(lengths) * 4 >= padded * 3:
            chosen.append(place)
    return tuple(chosen)


LEAST_SLICE = 16  # tokens; less would cost more in overhead than it gives


def least_slice(small: tuple[int, float], large: tuple[int, float], most: int) -> int:
    """Tokens of a slice of which the overhead is half of what it takes: fewer take nearly as long.

    small, large: tokens of a slice, and how many seconds it took. most: tokens of any slice.
    """
    per_token = (large[1] - small[1]) / (large[0] - small[0])
    overhead = small[1] - small[0] * per_token
    if overhead <= 0:
        return LEAST_SLICE
    return most if overhead >= most * per_token else max(int(overhead / per_token), LEAST_SLICE)


def next_slice_size(
    size: int, tokens: int, seconds: float, budget: float, least: int = LEAST_SLICE
) -> int:
    """How many prompt tokens to compute next between two decode steps.

    size: what was allowed this time, when `tokens` took so many seconds. budget: seconds that the
    streams can wait. least: fewer tokens would take as long. It is found by trying, since the
    first of a shape may take far longer than the others, and a GPU takes no longer for many than
    for few.
    """
    if seconds > budget:
        return min(size, max(int(tokens * max(budget / seconds, _SHRINK)), least))
    return int(size * _GROWTH) + 1 if tokens >= size * _FULL else size


_SHRINK, _GROWTH = 0.5, 1.25  # at a time
_FULL = 0.8  # of what was allowed; of fewer tokens nothing can be concluded


def even_slice(tokens: int, at_most: int, multiple: int = 1) -> int:
    """The first of as few slices as there can be, all about as large: a small one at the end
    would take nearly as long as a whole one. All but the last are multiples of `multiple`.
    """
    at_most = max(at_most - at_most % multiple, multiple)
    slices = -(-tokens // at_most)
    size = -(-tokens // slices)
    return min(size + -size % multiple, tokens)


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # slices are compared many times quicker than tokens in a loop
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
