"""Frames that differ in nothing but their text, encoded once for a whole stream."""

from pydantic import BaseModel
from pydantic_core import to_json

from adapters.http.sse import frame

# Stands where the text will. No model id contains it: ids are printable.
HOLE = "\0"


class FrameTemplate:
    """The frame of a chunk that has HOLE for its text, ready to be filled.

    Byte for byte what the chunk with that text would be: the text is encoded by pydantic too.
    """

    def __init__(self, chunk: BaseModel) -> None:
        self._around = frame(chunk.model_dump_json()).split(to_json(HOLE))

    def fill(self, text: str) -> bytes:
        return to_json(text).join(self._around)
