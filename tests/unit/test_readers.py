"""Each request hears what it is told, and no other."""

import pytest

from application.readers import Readers
from domain.errors import EngineFailed
from domain.outputs import End, Piece


async def test_a_request_hears_its_own_up_to_its_end() -> None:
    readers = Readers()
    with readers.join() as one, readers.join() as other:
        readers.tell(one.request, Piece("a"))
        readers.tell(other.request, Piece("b"))
        one.tell(End("stop"))
        one.tell(Piece("too late"))
        assert [output async for output in one] == [Piece("a"), End("stop")]
        assert [output async for output in one] == []
        assert await anext(other) == Piece("b")


async def test_an_error_is_raised_to_everyone_after_what_came_before_it() -> None:
    readers = Readers()
    with readers.join() as one, readers.join() as other:
        one.tell(Piece("a"))
        readers.fail(EngineFailed("broke"))
        assert await anext(one) == Piece("a")
        for reader in (one, other):
            with pytest.raises(EngineFailed, match="broke"):
                await anext(reader)


async def test_who_has_left_is_told_nothing() -> None:
    readers = Readers()
    with pytest.raises(ZeroDivisionError), readers.join() as gone:
        raise ZeroDivisionError
    readers.tell(gone.request, Piece("a"))
    readers.fail(EngineFailed("broke"))
    gone.tell(End("stop"))
    assert [output async for output in gone] == [End("stop")]
    with readers.join() as next_one:
        assert next_one.request != gone.request
