"""Stages on a server: who is sent when, and what becomes of the replies."""

import pytest

from adapters.bench.client import Server
from adapters.bench.runner import (
    Asking,
    Chats,
    Course,
    parts,
    run_stage,
    side_by_side,
    tokens_per_word,
)
from adapters.bench.scenarios import Message, Request, Stage
from tests.adapters.bench.server import BadServer


def target(server: BadServer, model: str = "fast", name: str = "s") -> Server:
    return Server(name, f"{server.url}/v1", model)


def request(chat: str, text: str = "hello", tokens: int = 3) -> Request:
    return Request(chat, (("user", text),), tokens)


async def test_no_more_at_once_than_asked_for(server: BadServer) -> None:
    stage = Stage("s", 2, tuple(request(str(n)) for n in range(6)))
    replies = await run_stage(target(server, "steady"), stage, Asking(), {})
    assert [asked.chat for asked, _ in replies] == ["0", "1", "2", "3", "4", "5"]
    times = [(reply.sent, reply.ended) for _, reply in replies]
    for moment, _ in times:
        assert sum(sent <= moment < ended for sent, ended in times) <= 2
    assert max(sent for sent, _ in times[:2]) < min(ended for _, ended in times)


async def test_a_chat_goes_on_with_what_was_said(server: BadServer) -> None:
    chats: Chats = {}
    for text in ("first", "second"):
        await run_stage(target(server), Stage("s", 1, (request("a", text, 2),)), Asking(), chats)
    expected: list[Message] = [
        ("user", "first"),
        ("assistant", "w0 w1 "),
        ("user", "second"),
        ("assistant", "w0 w1 "),
    ]
    assert chats == {"a": expected}
    sent = [(m["role"], m["content"]) for m in server.bodies()[-1]["messages"]]
    assert sent == expected[:3]


async def test_a_late_request_comes_amid_the_streams(server: BadServer) -> None:
    late = request("late")
    stage = Stage("s", 2, (request("a", tokens=60), request("b", tokens=60)), late, heard_before=5)
    replies = await run_stage(target(server, "steady"), stage, Asking(), {})
    last, amid = replies[-1]
    assert last is late
    for _, stream in replies[:-1]:
        assert stream.arrivals[2] < amid.sent < stream.ended
    named = parts(stage, replies)
    assert list(named) == ["s", "s, disturbed", "s, long prompt"]
    assert (named["s"].replies, named["s, long prompt"].replies) == (2, 1)
    assert 0 < len(named["s, disturbed"].gaps) < len(named["s"].gaps)
    assert len(named["s"].all_started) == 1


@pytest.mark.parametrize("model", ["fast", "busy", "leaves"])
async def test_a_late_request_comes_even_when_the_streams_are_short(
    server: BadServer, model: str
) -> None:
    stage = Stage("s", 2, (request("a"), request("b")), request("late"), heard_before=50)
    replies = await run_stage(target(server, model), stage, Asking(), {})
    assert len(replies) == 3
    assert list(parts(stage, replies)) == ["s", "s, disturbed", "s, long prompt"]


async def test_a_late_request_comes_even_when_nobody_is_there() -> None:
    nobody = Server("s", "http://127.0.0.1:9/v1", "m")
    stage = Stage("s", 2, (request("a"), request("b")), request("late"))
    replies = await run_stage(nobody, stage, Asking(), {})
    assert {reply.failure and reply.failure.kind for _, reply in replies} == {"connect"}


async def test_servers_take_turns(server: BadServer) -> None:
    said: list[str] = []
    turns: list[str] = []

    async def before_next_turn(server: Server) -> None:
        turns.append(server.name)

    def plan(number: int) -> tuple[Stage, ...]:
        return tuple(Stage(f"turn {n}", 1, (request("chat", f"{number}{n}"),)) for n in range(2))

    pair = (target(server, name="a"), target(server, name="b"))
    results = await side_by_side(pair, plan, Asking(), Course(2, said.append, before_next_turn))
    assert [line.rpartition(", ")[2] for line in said] == ["a", "b"] * 4
    assert turns == ["a", "b"] * 2
    asked = [body["messages"][-1]["content"] for body in server.bodies()]
    assert asked == ["00", "00", "01", "01", "10", "10", "11", "11"]
    assert [len(body["messages"]) for body in server.bodies()] == [1, 1, 3, 3, 1, 1, 3, 3]
    assert {(stage, name): len(r) for stage, by in results.items() for name, r in by.items()} == {
        ("turn 0", "a"): 2,
        ("turn 0", "b"): 2,
        ("turn 1", "a"): 2,
        ("turn 1", "b"): 2,
    }


async def test_tokens_per_word_are_measured(server: BadServer) -> None:
    assert await tokens_per_word(target(server), Asking(), "0") == 2.0
    assert await tokens_per_word(target(server, "uncounted"), Asking(), "0") is None
    assert await tokens_per_word(target(server, "busy"), Asking(), "0") is None


async def test_what_is_added_wins(server: BadServer) -> None:
    asking = Asking(extra={"ignore_eos": True, "temperature": 1})
    await run_stage(target(server), Stage("s", 1, (request("a"),)), asking, {})
    (body,) = server.bodies()
    assert (body["ignore_eos"], body["temperature"], body["max_tokens"]) == (True, 1, 3)
