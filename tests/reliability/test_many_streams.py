"""Row 1 of the faults: many streams, half of them reset at any point."""

import asyncio
import random
from pathlib import Path

from adapters.container import Container
from tests.reliability.wire import anonymous, connected, open_files, parse, request
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import eventually

STREAMS = 500
WORDS = " ".join(f"wörd{n}" for n in range(60))
BODY = {"model": "m", "messages": [{"role": "user", "content": "go"}], "stream": True}


def crowd(root: Path) -> Container:
    script = {"reply": WORDS, "token_delay": 0.002, "load_delay": 0.3, "slots": 100}
    settings = scripted_settings(
        root,
        "m",
        scripted=script,
        max_batch_size=100,
        max_waiting=STREAMS,
        log_level="error",
        first_event_patience=60,  # no heartbeats: the survivors are compared byte for byte
    )
    return Container(settings=settings)


async def whole(server: LiveServer) -> bytes:
    async with connected(server.port) as wire:
        await wire.send(request(BODY, Connection="close"))
        status, body = parse(await wire.read_all())
    assert status == 200
    return anonymous(body)


async def cut(server: LiveServer, chance: random.Random) -> None:
    """In the head, in the body, during the load, in the queue, in the midst of a frame."""
    data = request(BODY)
    async with connected(server.port) as wire:
        match chance.randrange(4):
            case 0:
                await wire.send(data[: chance.randrange(1, len(data))])
                await asyncio.sleep(chance.random() * 0.3)
            case 1:
                await wire.send(data)
            case 2:
                await wire.send(data)
                await asyncio.sleep(chance.random())
            case 3:
                await wire.send(data)
                for _ in range(chance.randrange(1, 12)):
                    await wire.read(chance.randrange(1, 700))
        wire.reset()


async def test_streams_that_are_cut_leave_nothing_and_harm_nobody(tmp_path: Path) -> None:
    chance = random.Random(6)  # noqa: S311 - reproducible chance
    with live_server(crowd(tmp_path / "m")) as server:
        async with connected(server.port) as wire:
            await wire.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await wire.read_all()
        await eventually(lambda: server.tasks <= 5)
        files, tasks = open_files(), server.tasks
        survivors = [whole(server) for _ in range(STREAMS // 2)]
        victims = [cut(server, chance) for _ in range(STREAMS // 2)]
        everyone = [*survivors, *victims]
        chance.shuffle(everyone)
        answers = [answer for answer in await asyncio.gather(*everyone) if answer]
        seconds = await eventually(lambda: server.is_free)
        print(f"free {seconds:.3f} s after the last stream")
        await eventually(lambda: server.tasks <= tasks and open_files() <= files)
        alone = await whole(server)
        assert len(answers) == STREAMS // 2
        assert set(answers) == {alone}
        assert alone.endswith(b"data: [DONE]\n\n")
        assert alone.count(b'"content":" w') == 59
