"""Which waiting requests join the running batch, and which must give their place up for a while.

A batch is padded to its longest request: `cost(tokens, rows)` is what the KV caches of so many
rows of so many tokens take, in bytes, and never falls when either grows.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import median

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


def slice_cost(slices: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Seconds that any slice of prefill takes, however short, and seconds for each of its tokens.

    slices: tokens and seconds of the last ones. The Theil-Sen line through them, which a few
    that took far longer hardly move (the first of a shape, on a GPU). Where all are as long
    there is no telling, and all is put down to the tokens.
    """
    pairs = combinations(slices, 2)
    slopes = [(t2 - t1) / (n2 - n1) for (n1, t1), (n2, t2) in pairs if n1 != n2]
    if not slopes:
        return 0.0, median(seconds / tokens for tokens, seconds in slices)
    each = max(median(slopes), 0.0)
    fixed = median(seconds - each * tokens for tokens, seconds in slices)
    return (fixed, each) if fixed > 0 else (0.0, median(t / n for n, t in slices))


def next_slice_size(size: int, cost: tuple[float, float], budget: float) -> int:
    """How many prompt tokens to compute next between two decode steps.

    size: what was allowed this time. cost: of a slice, and of a token. budget: seconds that the
    streams can wait. Where a slice costs as much as its tokens, more and shorter ones would only
    make all wait more often: on a GPU that is nearly all of a short one.
    """
    fixed, each = cost
    room = max(budget - fixed, fixed)
    most = size * _GROWTH
    return max(int(room / each) if room < each * most else most, LEAST_SLICE)


_GROWTH = 2  # at a time
LEAST_SLICE = 16  # tokens; less would cost more in overhead than it gives


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
