"""What one says, all hear who listen."""

from contextlib import aclosing

from application.feed import Feed


async def test_everyone_hears_what_is_said_from_then_on() -> None:
    feed: Feed[int] = Feed()
    first = feed.listen()
    feed.say(1)
    second = feed.listen()
    feed.say(2)
    feed.close()
    assert [item async for item in first] == [1, 2]
    assert [item async for item in second] == [2]


async def test_who_leaves_is_not_written_to() -> None:
    feed: Feed[int] = Feed()
    async with aclosing(feed.listen()) as reader:
        feed.say(1)
        assert await anext(reader) == 1
    feed.say(2)
    assert not feed._readers


async def test_a_reader_that_does_not_keep_up_is_let_go() -> None:
    feed: Feed[int] = Feed()
    reader = feed.listen()
    for number in range(5_000):
        feed.say(number)
    heard = [item async for item in reader]
    assert heard == list(range(1_000))
    assert not feed._readers


async def test_who_wants_to_be_told_is_told_at_once() -> None:
    feed: Feed[int] = Feed()
    told: list[int] = []
    feed.say(1)
    feed.tell(told.append)
    feed.say(2)
    assert told == [2]
