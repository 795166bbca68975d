"""The client against servers that behave, and that don't, over real sockets."""

import socket

import pytest

from adapters.bench.client import BadServer as NoServer
from adapters.bench.client import Server, ask, body, first_model
from adapters.bench.reply import Reply, understand
from tests.adapters.bench.server import FIRST, STEP, BadServer


async def reply_of(
    server: BadServer, model: str, *, tokens: int = 4, patience: float = 20
) -> Reply:
    target = Server("s", f"{server.url}/v1", model)
    options = {"max_tokens": tokens, "temperature": 0}
    data = body(target, "chat", [("user", "one two three")], options)
    return understand(await ask(target, "chat", data, patience))


async def test_the_times_are_the_servers(server: BadServer) -> None:
    said = await reply_of(server, "steady", tokens=20)
    assert said.failure is None
    assert (said.output_tokens, said.chunks, said.prompt_tokens, said.cached_tokens) == (
        20,
        20,
        16,
        4,
    )
    assert said.text.split() == [f"w{n}" for n in range(20)]
    # Never early; a busy machine may be late.
    first = said.arrivals[0] - said.sent
    assert FIRST * 0.95 <= first <= FIRST + 1
    assert 19 * STEP * 0.95 <= said.arrivals[-1] - said.arrivals[0] <= 19 * STEP + 1
    assert said.arrivals[-1] <= said.ended
    assert len(said.arrivals) > 10  # they were not lumped together


async def test_chunks_in_crumbs(server: BadServer) -> None:
    said = await reply_of(server, "split", tokens=2)
    assert (said.failure, said.text, said.output_tokens) == (None, "Grüße aus Köln", 2)


async def test_without_usage_and_without_length(server: BadServer) -> None:
    said = await reply_of(server, "uncounted")
    assert (said.failure, said.text, said.output_tokens, said.counted) == (
        None,
        "one two 3",
        2,
        False,
    )


@pytest.mark.parametrize(
    ("model", "kind", "detail"),
    [
        ("busy", "http 429", "Come back later."),
        ("fails_amid", "error event", "The engine died."),
        ("resets", "reset", ""),
        ("leaves", "cut off", "closed"),
        ("ends_early", "cut off", "no last event"),
        ("babbles", "malformed", "SSH"),
        ("breaks_json", "malformed", "JSON"),
        ("unstreamed", "not a stream", "all"),
    ],
)
async def test_failures_have_kinds(server: BadServer, model: str, kind: str, detail: str) -> None:
    said = await reply_of(server, model, patience=4)
    assert said.failure
    assert said.failure.kind == kind
    assert detail in said.failure.detail


async def test_patience_ends(server: BadServer) -> None:
    said = await reply_of(server, "hangs", patience=0.3)
    assert said.failure
    assert (said.failure.kind, said.failure.detail) == ("timeout", "after 0.3 s")
    assert 0.29 <= said.ended - said.sent < 5


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    said = await reply_of(BadServer(f"http://127.0.0.1:{port}"), "fast")
    assert said.failure
    assert said.failure.kind == "connect"


async def test_what_is_sent(server: BadServer) -> None:
    target = Server("s", f"{server.url}/v1", "fast", api_key="secret")
    for endpoint in ("chat", "completions"):
        data = body(
            target, endpoint, [("system", "a"), ("user", "b")], {"max_tokens": 2, "seed": 5}
        )
        await ask(target, endpoint, data, 5)
    chat, text = server.asked
    assert (chat.path, text.path) == ("/v1/chat/completions", "/v1/completions")
    assert chat.headers["authorization"] == "Bearer secret"
    common = {
        "model": "fast",
        "max_tokens": 2,
        "seed": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert chat.body == common | {"messages": messages}
    assert text.body == common | {"prompt": "a\nb"}


async def test_the_first_model_is_found(server: BadServer) -> None:
    assert await first_model(Server("s", f"{server.url}/v1"), 5) == "fast"
    with pytest.raises(NoServer, match="connect"):
        await first_model(Server("s", "http://127.0.0.1:9/v1"), 5)


@pytest.mark.parametrize(
    ("text", "name", "url", "model", "key"),
    [
        ("http://h:1", "h:1", "http://h:1/v1", "m", "k"),
        ("h:1/v1/", "h:1", "http://h:1/v1", "m", "k"),
        ("ours=https://h/openai/v1", "ours", "https://h/openai/v1", "m", "k"),
        ("b=http://k%40y@h:1#org/a model", "b", "http://h:1/v1", "org/a model", "k@y"),
        ("http://[::1]:8000", "[::1]:8000", "http://[::1]:8000/v1", "m", "k"),
    ],
)
def test_servers_are_parsed(text: str, name: str, url: str, model: str, key: str) -> None:
    assert Server.parse(text, model="m", api_key="k") == Server(name, url, model, key)


@pytest.mark.parametrize("text", ["ftp://h", "http://", "http://h:port", "http://h:99999"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(NoServer):
        Server.parse(text)
