"""Values by token sequence, found by prefix: a trie whose edges hold runs of tokens.

Tokens are packed, four bytes each, so that runs are compared as bytes and not in Python's loops.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

_WIDTH: Final = 4

V = TypeVar("V")


def pack(tokens: Sequence[int]) -> bytes:
    """Raises OverflowError for what can't be a token."""
    return array("I", tokens).tobytes()


def unpack(packed: bytes) -> list[int]:
    return array("I", packed).tolist()


def count_packed(packed: bytes) -> int:
    return len(packed) // _WIDTH


def shared_length(one: bytes, other: bytes) -> int:
    """Bytes of the whole tokens with which both begin."""
    low, high = 0, min(len(one), len(other)) // _WIDTH
    if one[: high * _WIDTH] == other[: high * _WIDTH]:
        return high * _WIDTH
    while high - low > 1:  # the first `low` tokens are alike, the first `high` are not
        middle = (low + high) // 2
        part = slice(low * _WIDTH, middle * _WIDTH)
        low, high = (middle, high) if one[part] == other[part] else (low, middle)
    return low * _WIDTH


class Node(Generic[V]):
    """edge: the tokens that lead here from the parent. marked: values below, its own included,
    that were put in with a mark.
    """

    __slots__ = ("children", "edge", "marked", "parent", "value", "value_marked")

    def __init__(self, edge: bytes = b"", parent: "Node[V] | None" = None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[bytes, Node[V]] = {}
        self.value: V | None = None
        self.value_marked = False
        self.marked = 0


class TokenTrie(Generic[V]):
    """At most one value for each sequence."""

    def __init__(self) -> None:
        self._root: Node[V] = Node()

    def __bool__(self) -> bool:
        return bool(self._root.children) or self._root.value is not None

    def put(self, tokens: bytes, value: V, *, marked: bool) -> None:
        """The sequence must have no value yet."""
        node = self._make(tokens)
        node.value, node.value_marked = value, marked
        if marked:
            _count(node, 1)

    def remove(self, tokens: bytes) -> None:
        """The sequence must have a value."""
        *_, (node, _depth) = self._path(tokens)
        if node.value_marked:
            _count(node, -1)
        node.value, node.value_marked = None, False
        _tidy(node)

    def prefixes(self, tokens: bytes) -> list[V]:
        """The values of sequences that are a prefix of `tokens`, or the whole, shortest first."""
        return [node.value for node, _ in self._path(tokens) if node.value is not None]

    def longest(self, tokens: bytes) -> tuple[V, int] | None:
        """The value that has the most tokens in common with `tokens`, and how many.

        Marked values may go on differently; those without a mark must be a prefix of `tokens`.
        """
        *above, (deepest, depth) = self._path(tokens)
        inside, partial = self._child(deepest, tokens, depth)
        if inside is not None and inside.marked:
            return _any_marked(inside), (depth + partial) // _WIDTH
        for node, length in [(deepest, depth), *reversed(above)]:
            if node.value is not None:
                return node.value, length // _WIDTH
            if node.marked:
                return _any_marked(node), length // _WIDTH
        return None

    def _path(self, tokens: bytes) -> list[tuple[Node[V], int]]:
        """The nodes that `tokens` lead through from the root on, and how deep each is in bytes."""
        path = [(self._root, 0)]
        while True:
            node, depth = path[-1]
            child, shared = self._child(node, tokens, depth)
            if child is None or shared < len(child.edge):
                return path
            path.append((child, depth + shared))

    def _child(self, node: Node[V], tokens: bytes, depth: int) -> tuple[Node[V] | None, int]:
        """Where `tokens` go on, and how many bytes of that edge are theirs."""
        child = node.children.get(tokens[depth : depth + _WIDTH])
        if child is None:
            return None, 0
        return child, shared_length(child.edge, tokens[depth : depth + len(child.edge)])

    def _make(self, tokens: bytes) -> Node[V]:
        """The node of this sequence, an edge split for it if need be."""
        *_, (node, depth) = self._path(tokens)
        child, shared = self._child(node, tokens, depth)
        if child is not None:
            node, depth = _split(node, child, shared), depth + shared
        return node if depth == len(tokens) else _attach(Node(tokens[depth:]), node)


def _attach(child: Node[V], parent: Node[V]) -> Node[V]:
    child.parent = parent
    parent.children[child.edge[:_WIDTH]] = child
    return child


def _split(parent: Node[V], child: Node[V], at: int) -> Node[V]:
    """A new node in the middle of the edge that leads from one to the other."""
    middle = _attach(Node(child.edge[:at]), parent)
    middle.marked = child.marked
    child.edge = child.edge[at:]
    _attach(child, middle)
    return middle


def _tidy(node: Node[V]) -> None:
    """Remove a node that has come to be of no use; a sole child takes its place."""
    parent = node.parent
    if parent is None or node.value is not None or len(node.children) > 1:
        return
    if not node.children:
        del parent.children[node.edge[:_WIDTH]]
        _tidy(parent)
        return
    (child,) = node.children.values()
    child.edge = node.edge + child.edge
    _attach(child, parent)


def _count(node: Node[V], change: int) -> None:
    for above in _upwards(node):
        above.marked += change


def _upwards(node: Node[V] | None) -> Iterator[Node[V]]:
    while node is not None:
        yield node
        node = node.parent


def _any_marked(node: Node[V]) -> V:
    while not (node.value_marked and node.value is not None):
        node = next(child for child in node.children.values() if child.marked)
    return node.value
