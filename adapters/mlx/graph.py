"""How much memory a graph of operations needs at once: it is walked in the order in which MLX
computes, and each array is forgotten after its last use. Only sizes, no mlx.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

# MLX computes behind the thread that asks, and what an operation used goes only once it is done.
# Ten tasks of about three operations each may be under way (MAX_ACTIVE_TASKS in
# mlx/transforms.cpp); with this, estimates on the CPU are near what is measured.
_RUN_AHEAD = 30
_WIDTH = 20  # MLX_BFS_MAX_WIDTH there

# Other names for the memory of their first input; those of the second line leave gaps in it.
_SAME_LAYOUT = {"Squeeze", "ExpandDims", "Unflatten", "Depends", "StopGradient", "View", "Copy"}
_OTHER_LAYOUT = {"Transpose", "Broadcast", "Slice", "Split", "AsStrided", "DynamicSlice"}
_RESHAPES = {"Reshape", "Flatten"}  # other names too, unless there are gaps

# They read their inputs more than once, so their outputs never take an input's place.
_NEVER_IN_PLACE = {
    "AddMM", "ArgPartition", "ArgReduce", "ArgSort", "BlockMaskedMM", "Concatenate",
    "Convolution", "CustomKernel", "Gather", "GatherAxis", "GatherMM", "GatherQMM", "Matmul",
    "Pad", "Partition", "QuantizedMatmul", "Reduce", "Scan", "ScaledDotProductAttention", "Sort",
}  # fmt: skip


@dataclass(slots=True)
class Operation:
    name: str
    inputs: list[str]
    outputs: list[tuple[str, int]]  # with their sizes in bytes


@dataclass(slots=True)
class Graph:
    """The operations of one pass. Caches are what may go; whatever else is given stays."""

    caches: dict[str, int] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    results: dict[str, int] = field(default_factory=dict)
    said: int = 0  # bytes of the log-probabilities, where they were wanted

    def workspace(self) -> int:
        """The most bytes held at once, beyond what is left at the end."""
        return _Walk(self).peak() - sum(self.results.values())


def _in_order(graph: Graph) -> list[Operation]:
    """The operations as `eval_impl` in mlx/transforms.cpp (0.32) computes them.

    It goes back from the results, level by level, and deeper where a level grows too wide.
    """
    makers = {name: step for step in graph.operations for name, _ in step.outputs}
    last = Operation("", list(graph.results), [])
    waits = Counter(
        id(makers[name])
        for step in [last, *graph.operations]
        for name in step.inputs
        if name in makers
    )
    tape, done = [last], 0
    postponed: list[tuple[Operation, int]] = []
    while done < len(tape) or postponed:
        if done < len(tape):
            (step, start), done = (tape[done], 0), done + 1
        else:
            step, start = postponed.pop()
        for n in range(start, len(step.inputs)):
            if step.inputs[n] not in makers:
                continue
            if len(tape) - done >= _WIDTH:
                postponed.append((step, n))
                break
            maker = makers[step.inputs[n]]
            waits[id(maker)] -= 1
            if not waits[id(maker)]:
                tape.append(maker)
    return tape[:0:-1]


class _Walk:
    """Which memory each array of a graph lives in, and how much of it is held after each step."""

    def __init__(self, graph: Graph) -> None:
        self._home: dict[str, str] = {name: name for name in graph.caches}  # array -> memory
        self._size = dict(graph.caches)  # memory -> bytes
        self._given = sum(graph.caches.values())
        self._gaps: set[str] = set()  # arrays
        self._reads: dict[str, int] = {}  # memory -> operations that still have to read it
        self._steps = [step for step in _in_order(graph) if not self._renames(step)]
        self._kept = {self._home[name] for name in graph.results if name in self._home}

    def peak(self) -> int:
        """In bytes."""
        most = held = self._given
        leaving = deque([0] * _RUN_AHEAD, _RUN_AHEAD)
        for step in self._steps:
            dying = self._read(step)
            reused = sum(self._reused(step, dying))
            held += sum(size for _, size in step.outputs) - reused
            most = max(most, held)
            held -= leaving[0]
            leaving.append(sum(self._size[home] for home in dying) - reused)
        return most

    def _renames(self, step: Operation) -> bool:
        """Whether its output is the memory of its input; takes note of all that it means."""
        source = step.inputs[0] if step.inputs else ""
        gaps = step.name in _OTHER_LAYOUT or source in self._gaps
        renames = step.name in _SAME_LAYOUT | _OTHER_LAYOUT
        if renames or (step.name in _RESHAPES and not gaps):
            for name, _ in step.outputs:
                if source in self._home:
                    self._home[name] = self._home[source]
                if gaps:
                    self._gaps.add(name)
            return True
        for name, size in step.outputs:
            self._home[name] = name
            self._size[name] = size
        for home in self._homes(step):
            self._reads[home] = self._reads.get(home, 0) + 1
        return False

    def _homes(self, step: Operation) -> set[str]:
        """The memory that it reads; weights and constants stay, and don't count."""
        return {self._home[name] for name in step.inputs if name in self._home}

    def _read(self, step: Operation) -> list[str]:
        """What nobody reads after this step."""
        homes = self._homes(step)
        for home in homes:
            self._reads[home] -= 1
        return [home for home in homes if not self._reads[home] and home not in self._kept]

    def _reused(self, step: Operation, dying: list[str]) -> Iterator[int]:
        """The sizes of the inputs whose place an output takes."""
        if step.name in _NEVER_IN_PLACE:
            return
        free = [self._size[home] for home in dying]
        for _, size in step.outputs:
            if size in free:
                free.remove(size)
                yield size
