"""One state of a model in a safetensors file that shows by itself whether it is sound.

Written here and not by mlx: array by array, so that a worker can serve in between, and with a
checksum of everything, the header included. Worker thread only.
"""

import json
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from adapters.mlx.snapshot import Layer, Snapshot
from domain.token_trie import pack, unpack

_FORMAT = "portico prefix 1"
_PIECE = 8 * 2**20  # bytes written at a time
_SIZE_BYTES = 8  # before the header: how long it is
_DTYPES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.uint16: "U16",
    mx.uint32: "U32",
    mx.int8: "I8",
    mx.int16: "I16",
    mx.int32: "I32",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
}


class Damaged(Exception):
    """Not a file of ours, or no longer what was written."""


@dataclass(frozen=True, slots=True)
class Label:
    """Whose state it is, and after which tokens. fingerprint: of the model. scope: hashed."""

    fingerprint: str
    scope: str
    packed: bytes
    trimmable: bool


class Draft:
    """A file to be. Raises ValueError for arrays that safetensors don't know."""

    def __init__(self, label: Label, snapshot: Snapshot) -> None:
        arrays = [array for layer in snapshot.layers for array in layer.all_arrays]
        tensors = {
            "tokens": ("U32", [len(label.packed) // 4]),
            **{str(n): (_dtype(array), list(array.shape)) for n, array in enumerate(arrays)},
            "checksums": ("U32", [len(arrays) + 2]),
        }
        sizes = [len(label.packed), *(array.nbytes for array in arrays), 4 * (len(arrays) + 2)]
        self._header = _header(_metadata(label, snapshot), tensors, sizes)
        self._tokens = label.packed
        self._arrays = arrays
        self.size = len(self._header) + sum(sizes)

    def write(self, path: Path) -> Generator[None, None, None]:
        """A piece at each step, to a file that only its owner can read. Raises OSError.

        Not synced: that a file is not whole after a loss of power, its checksums show.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            sums = []
            contents: list[bytes | mx.array] = [self._header, self._tokens, *self._arrays]
            for content in contents:
                checksum = 0
                for piece in _pieces(content):
                    _write_all(file.fileno(), piece)
                    checksum = crc32(piece, checksum)
                    yield
                sums.append(checksum)
            _write_all(file.fileno(), memoryview(pack(sums)))


def read_label(path: Path) -> Label:
    """Without the arrays. Raises Damaged, or OSError where nothing can be read."""
    return _read_head(path)[0]


def read_snapshot(path: Path, label: Label) -> Snapshot:
    """Raises Damaged, or OSError where nothing can be read.

    All of it is checked again: it may have been years since the label was.
    """
    found, layers, sums = _read_head(path)
    if found != label:
        raise Damaged("another label")
    try:
        # mlx trusts the header (ml-explore/mlx#4213); safetensors have checked it by now.
        arrays: Any = mx.load(str(path))
        loaded = [arrays[str(n)] for n in range(len(sums))]
        mx.eval(loaded)
    except (RuntimeError, ValueError, KeyError) as error:
        raise Damaged(str(error)) from error
    if sums != [crc32(_bytes(array)) for array in loaded]:
        raise Damaged("a wrong checksum")
    return Snapshot(tuple(_layer(layer, loaded) for layer in layers), label.trimmable)


def _read_head(path: Path) -> tuple[Label, Any, list[int]]:
    """The label, the layers as JSON has them, and the checksums of the arrays."""
    try:
        with safe_open(path, framework="np") as file:  # checks the header against the size
            metadata = file.metadata() or {}
            packed = file.get_tensor("tokens").tobytes()
            sums = unpack(file.get_tensor("checksums").tobytes())
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise Damaged(str(error)) from error  # numpy lacks some dtypes, each in its own way
    if sums[:2] != [crc32(_raw_header(path)), crc32(packed)]:
        raise Damaged("a wrong checksum")
    if metadata.get("format") != _FORMAT:
        raise Damaged("another format")
    label = Label(
        metadata["fingerprint"], metadata["scope"], packed, metadata["trimmable"] == "true"
    )
    return label, json.loads(metadata["layers"]), sums[2:]


def _raw_header(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.read(_SIZE_BYTES)
        return size + file.read(int.from_bytes(size, "little"))


def _header(
    metadata: dict[str, str], tensors: dict[str, tuple[str, list[int]]], sizes: Sequence[int]
) -> bytes:
    ends = list(accumulate(sizes))
    described: dict[str, Any] = {"__metadata__": metadata}
    for (name, (dtype, shape)), size, end in zip(tensors.items(), sizes, ends, strict=True):
        described[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end - size, end]}
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % _SIZE_BYTES)  # the arrays begin at a multiple of eight
    return len(text).to_bytes(_SIZE_BYTES, "little") + text


def _metadata(label: Label, snapshot: Snapshot) -> dict[str, str]:
    numbers = iter(range(sum(len(layer.all_arrays) for layer in snapshot.layers)))
    return {
        "format": _FORMAT,
        "fingerprint": label.fingerprint,
        "scope": label.scope,
        "trimmable": "true" if label.trimmable else "false",
        "layers": json.dumps([_described(layer, numbers) for layer in snapshot.layers]),
    }


def _described(layer: Layer, numbers: Iterator[int]) -> list[Any]:
    arrays = [None if array is None else next(numbers) for array in layer.arrays]
    parts = [_described(part, numbers) for part in layer.parts]
    return [layer.kind, arrays, layer.offset, layer.settings, parts]


def _layer(described: Any, loaded: Sequence[mx.array]) -> Layer:
    kind, numbers, offset, settings, parts = described
    arrays = tuple(None if number is None else loaded[number] for number in numbers)
    return Layer(kind, arrays, offset, tuple(settings), tuple(_layer(p, loaded) for p in parts))


def _dtype(array: mx.array) -> str:
    if array.dtype not in _DTYPES:
        raise ValueError(f"no safetensors for {array.dtype}")
    return _DTYPES[array.dtype]


def _bytes(array: mx.array) -> memoryview:
    """Its memory, not a copy. (Python knows no bfloat16.)"""
    return memoryview(array.reshape(-1).view(mx.uint8))  # type: ignore[arg-type] # since 3.12


def _pieces(content: bytes | mx.array) -> Iterator[memoryview]:
    whole = memoryview(content) if isinstance(content, bytes) else _bytes(content)
    for start in range(0, len(whole), _PIECE):
        yield whole[start : start + _PIECE]


def _write_all(descriptor: int, piece: memoryview) -> None:
    """A single call may write less, as on a disk that gets full."""
    while piece:
        piece = piece[os.write(descriptor, piece) :]
