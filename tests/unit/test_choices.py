"""Several answers to one request."""

from collections.abc import AsyncGenerator

from application.choices import Choice, assemble_all
from domain.events import Finished, TextDelta, Usage


async def interleaved(count: int, words: int, ends: int) -> AsyncGenerator[Choice, None]:
    """`ends` of the answers come to their end, the last one first."""
    for word in range(words):
        for index in range(count):
            yield index, TextDelta(f"{index}.{word} ")
    for index in reversed(range(ends)):
        yield index, Finished("stop", Usage(1, words))


async def test_answers_are_whole_and_in_order_whenever_they_end() -> None:
    answers = await assemble_all(interleaved(count=3, words=2, ends=3), 3)
    assert [answer.text for answer in answers] == ["0.0 0.1 ", "1.0 1.1 ", "2.0 2.1 "]
    assert {answer.usage.completion_tokens for answer in answers} == {2}
