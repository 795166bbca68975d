"""Generated tokens into text, one at a time, without ever splitting a UTF-8 character."""

import codecs
from typing import Protocol

from mlx_lm.tokenizer_utils import (
    BPEStreamingDetokenizer,
    SPMStreamingDetokenizer,
    StreamingDetokenizer,
    TokenizerWrapper,
)


class Detokenizer(Protocol):
    """The text of one answer as its tokens come."""

    def add(self, token: int) -> str:
        """What the token makes readable; empty while a character is incomplete."""

    def finish(self) -> str:
        """What was held back. A character that stayed incomplete is dropped."""


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes (openai/gpt-2, src/encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(rest)}


class Vocabulary:
    """The bytes that each token of a model stands for.

    Byte-level BPE and SentencePiece tokens are bytes by nature. For any other kind, mlx-lm's
    own detokenizer is used and the bytes are those of the token decoded alone.
    """

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer = tokenizer
        self._reference: StreamingDetokenizer = tokenizer.detokenizer
        self._added: dict[int, bytes] = {
            token: added.content.encode() for token, added in tokenizer.added_tokens_decoder.items()
        }
        self._alphabet = _byte_alphabet()
        self._bytes: dict[int, bytes] = {}

    def bytes_of(self, token: int) -> bytes:
        """Empty for ids that stand for nothing (a model may have more rows than tokens)."""
        if token not in self._bytes:
            self._bytes[token] = self._look_up(token)
        return self._bytes[token]

    def detokenizer(self, *, starts_turn: bool) -> Detokenizer:
        """starts_turn: the answer is a turn of its own, and not the rest of a text.

        SentencePiece writes a space before the first word of a turn, which is not part of it.
        """
        if isinstance(self._reference, BPEStreamingDetokenizer):
            return _ByteDetokenizer(self, trims_space=False)
        if isinstance(self._reference, SPMStreamingDetokenizer):
            return _ByteDetokenizer(self, trims_space=starts_turn and self._reference.trim_space)
        return _TextDetokenizer(self._tokenizer.detokenizer)

    def _look_up(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token]
        if token >= len(self._tokenizer):
            return b""
        if isinstance(self._reference, BPEStreamingDetokenizer):
            text: str = self._reference.tokenmap[token] or ""
            return b"".join(
                bytes([self._alphabet[c]]) if c in self._alphabet else c.encode() for c in text
            )
        if isinstance(self._reference, SPMStreamingDetokenizer):
            raw: bytes = self._reference.tokenmap[token]
            return raw.replace("▁".encode(), b" ")
        decoded: str = self._tokenizer.decode([token])
        return decoded.encode()


class _ByteDetokenizer:
    def __init__(self, vocabulary: Vocabulary, *, trims_space: bool) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._trims_space = trims_space

    def add(self, token: int) -> str:
        text = self._decoder.decode(self._vocabulary.bytes_of(token))
        if text and self._trims_space:
            self._trims_space = False
            return text.removeprefix(" ")
        return text

    def finish(self) -> str:
        return ""


class _TextDetokenizer:
    def __init__(self, detokenizer: StreamingDetokenizer) -> None:
        self._detokenizer = detokenizer

    def add(self, token: int) -> str:
        self._detokenizer.add_token(token)
        return str(self._detokenizer.last_segment)

    def finish(self) -> str:
        self._detokenizer.finalize()
        return str(self._detokenizer.last_segment).rstrip("\ufffd")
