"""Row 9: more requests than there are places, in the batch and in the queue."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from adapters.container import Container
from tests.reliability.wire import connected, request
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import eventually

SLOTS, WAITING, TOO_MANY = 8, 16, 100
BODY = {"model": "m", "messages": [{"role": "user", "content": "go"}]}


def small(root: Path) -> Container:
    script = {"reply": "done", "prompt_delay": 0.5, "load_delay": 0.3, "slots": SLOTS}
    return Container(settings=scripted_settings(root, "m", scripted=script, max_waiting=WAITING))


async def ask(server: LiveServer, stream: bool) -> tuple[int, float, bytes]:
    async with connected(server.port) as wire:
        began = time.monotonic()
        await wire.send(request(BODY | {"stream": stream}, Connection="close"))
        first = await wire.read()  # a reset raises here
        seconds = time.monotonic() - began
        answer = first + await wire.read_all()
    return int(answer.split(b" ")[1]), seconds, answer


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_exactly_those_beyond_capacity_and_queue_are_refused(
    tmp_path: Path, loaded: bool, stream: bool
) -> None:
    with live_server(small(tmp_path / "m")) as server:
        if loaded:
            await ask(server, stream)
        await eventually(lambda: server.is_free)
        everyone = (ask(server, stream) for _ in range(SLOTS + WAITING + TOO_MANY))
        answers = await asyncio.gather(*everyone)
        refused = [answer for answer in answers if answer[0] == 429]
        assert sorted(status for status, _, _ in answers) == (
            [200] * (SLOTS + WAITING) + [429] * TOO_MANY
        )
        for _, _, answer in refused:
            assert b"\r\nretry-after: 1\r\n" in answer
            error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert "max_waiting" in error["message"]
        slowest = max(seconds for _, seconds, _ in refused)
        print(f"the slowest refusal took {slowest * 1000:.0f} ms")
        assert server.is_free
