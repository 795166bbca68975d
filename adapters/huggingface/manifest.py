"""What of a repository is needed to run its model. Code and pickles never are."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from domain.errors import HubFailed, HubFault

if TYPE_CHECKING:  # a server that starts reads folders, and does not wait for the hub's client
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import RepoSibling

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
_WEIGHTS = "model*.safetensors"  # what mlx-lm loads
# One of these has the vocabulary.
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "*.tiktoken",
    "tiktoken.model",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
_NEEDED = (
    CONFIG,
    INDEX,
    _WEIGHTS,
    *TOKENIZERS,
    "generation_config.json",
    "tokenizer*.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_ADAPTERS = ("adapter_model.safetensors", "adapters.safetensors")
_FORMATS = {
    ".gguf": "GGUF files",
    ".bin": "PyTorch pickles",
    ".pt": "PyTorch pickles",
    ".pth": "PyTorch pickles",
    ".pkl": "pickles",
    ".npz": "NumPy files",
    ".npy": "NumPy files",
    ".onnx": "ONNX files",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # of a git blob, or sha256


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """digest: the sha256 of a large file, the git blob id of a small one."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one commit that are needed."""

    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def is_weights(name: str) -> bool:
    return fnmatchcase(name, _WEIGHTS)


def has_tokenizer(names: Iterable[str]) -> bool:
    return any(_matches(name, TOKENIZERS) for name in names)


def read_manifest(info: "ModelInfo") -> Manifest:
    """Raises HubFailed for a repository without a model that MLX could load."""
    siblings = info.siblings or []
    names = [sibling.rfilename for sibling in siblings]
    # A name with a slash matches none of them: nothing is ever written outside its folder.
    needed = {name for name in names if "/" not in name and _matches(name, _NEEDED)}
    problem = _problem(names, needed)
    if problem:
        raise HubFailed(
            HubFault.UNSUITABLE,
            f"`{info.id}` {problem}. Search for a version of it that was made for MLX.",
        )
    if not _COMMIT.fullmatch(info.sha or ""):
        raise _unverifiable(info.id)
    files = (_remote_file(info.id, file) for file in siblings if file.rfilename in needed)
    return Manifest(str(info.sha), tuple(files))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _problem(names: list[str], needed: set[str]) -> str | None:
    if not any(is_weights(name) for name in needed):
        return _other_weights(names)
    if CONFIG not in needed:
        return f"has no {CONFIG}"
    return None if has_tokenizer(needed) else "has no tokenizer"


def _other_weights(names: list[str]) -> str:
    if any(name in _ADAPTERS for name in names):
        return "holds only an adapter (LoRA), which is no model by itself"
    suffixes = {PurePosixPath(name).suffix for name in names}
    found = sorted({words for suffix, words in _FORMATS.items() if suffix in suffixes})
    if found:
        return f"holds only {' and '.join(found)}, and MLX needs safetensors"
    return "holds no weights in safetensors form (model.safetensors)"


def _remote_file(repo: str, file: "RepoSibling") -> RemoteFile:
    size, digest = (file.lfs.size, file.lfs.sha256) if file.lfs else (file.size, file.blob_id)
    if size is None or size < 0 or not _DIGEST.fullmatch(digest or ""):
        raise _unverifiable(repo)
    return RemoteFile(file.rfilename, size, str(digest))


def _unverifiable(repo: str) -> HubFailed:
    return HubFailed(
        HubFault.CORRUPT,
        f"The hub does not say which bytes `{repo}` is made of, so nothing could be verified. "
        "Use a complete hub: check HF_ENDPOINT.",
    )
