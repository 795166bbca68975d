"""The weight files of a model folder, and what their headers say."""

import json
import re
import struct
from pathlib import Path

from adapters.huggingface.manifest import INDEX

_SHARD = re.compile(r"-\d+-of-(\d+)\.safetensors$")
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


def weight_files(location: Path) -> list[Path]:
    """Empty while a shard of the index is missing. Raises ValueError, and errors of its kind, for
    an index that is none.
    """
    index = location / INDEX
    if not index.is_file():
        return _complete(sorted(location.glob("model*.safetensors")))
    shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    files = [location / shard for shard in shards]
    if any(Path(shard).name != shard for shard in shards):
        raise ValueError("its index names files in other folders")
    return files if all(file.is_file() for file in files) else []


def _complete(files: list[Path]) -> list[Path]:
    """Some models come in shards without an index, whose names tell how many they are."""
    counts = {int(named[1]) for file in files if (named := _SHARD.search(file.name))}
    return [] if any(count > len(files) for count in counts) else files


def tensor_bytes(file: Path) -> int:
    """What its tensors take. Raises ValueError, and errors of its kind, unless the header accounts
    for every byte of the file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            raise ValueError(f"{file.name} is too short to be a safetensors file")
        (length,) = _LENGTH.unpack(prefix)
        if length > min(size - _LENGTH.size, _LONGEST_HEADER):
            raise ValueError(f"{file.name} is no safetensors file, or ends early")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    spans = [tensor["data_offsets"] for tensor in header.values()]
    total = sum(_span(*span) for span in spans)
    if total != size - _LENGTH.size - length or total != max((end for _, end in spans), default=0):
        raise ValueError(f"{file.name} does not have the size that its header tells")
    return total


def _span(begin: int, end: int) -> int:
    if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin <= end):
        raise ValueError("a tensor ends before it begins")
    return end - begin
