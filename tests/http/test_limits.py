"""The limits of a request, as clients meet them: an error in the API's shape, and a connection
that is in order or gone.
"""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adapters.container import Container
from tests.http.managed import error_of
from tests.reliability.wire import CHAT, connected, head, parse, request
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import eventually, until

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
LIMITS: dict[str, Any] = {
    "max_body_mb": 0.2,
    "max_body_values": 1000,
    "max_header_kb": 4,
    "max_prompt_chars": 1000,
    "max_schema_chars": 500,
    "max_schema_depth": 8,
    "max_connections": 20,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(Container(settings=scripted_settings(tmp_path / "m", "m", **LIMITS))) as live:
        yield live


def post(server: LiveServer, path: str = CHAT, **more: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=BODY | more, timeout=20)


def is_error(data: bytes, status: int, code: str) -> None:
    """Of an answer that ended its connection."""
    top, body = parse(data)
    assert top == status
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert b"\r\nx-request-id: req_" in data
    assert b"\r\nconnection: close" in data.lower()


def test_long_prompts_are_refused_by_name(server: LiveServer) -> None:
    answer = post(server, messages=[{"role": "user", "content": "x" * 2000}])
    assert (answer.status_code, error_of(answer)["param"]) == (400, "messages")
    assert "max_prompt_chars" in error_of(answer)["message"]
    for prompt in ("x" * 2000, ["x" * 600, "y" * 600], [1] * 2000):
        answer = post(server, "/v1/completions", prompt=prompt, messages=None)
        assert (answer.status_code, error_of(answer)["param"]) == (400, "prompt")


def test_large_and_deep_schemas_are_refused_by_name(server: LiveServer) -> None:
    deep: dict[str, Any] = {}
    for _ in range(10):
        deep = {"properties": {"a": deep}}
    for schema, setting in (
        ({"enum": ["x" * 600]}, "max_schema_chars"),
        (deep, "max_schema_depth"),
    ):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = post(server, response_format=form)
        assert (answer.status_code, error_of(answer)["param"]) == (400, "response_format")
        assert setting in error_of(answer)["message"]
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        answer = post(server, tools=[tool])
        assert (answer.status_code, error_of(answer)["param"]) == (400, "tools")
        assert setting in error_of(answer)["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_not_read(server: LiveServer, chunked: bool) -> None:
    """Of a gigabyte that was announced nothing is read, of one that was not, little."""
    kind = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": "1000000000"}
    async with connected(server.port) as wire:
        await wire.send(head("POST", CHAT, Content_Type="application/json", **kind))
        if chunked:
            await wire.send(b"40000\r\n" + b" " * 0x40000 + b"\r\n")
        data = await wire.read_all()
    is_error(data, 413, "body_too_large")
    assert b"max_body_mb" in data


@pytest.mark.parametrize(
    "values", ['{"role":"user","content":""},' * 400, "[]," * 1000, '{"a":1},' * 600, "1," * 26_000]
)
def test_a_body_of_many_values_is_refused_before_it_is_parsed(
    server: LiveServer, values: str
) -> None:
    """Were it parsed, it would be no JSON: 400."""
    body = f'{{"model":"m","messages":[{values}}}'
    answer = httpx.post(
        server.url + CHAT, content=body, headers={"Content-Type": "application/json"}, timeout=20
    )
    assert (answer.status_code, error_of(answer)["code"]) == (413, "body_too_large")
    assert "max_body_values" in error_of(answer)["message"]


def test_what_is_said_counts_as_one_value(server: LiveServer) -> None:
    text = '{"a": [1, 2, "' * 60
    assert post(server, messages=[{"role": "user", "content": text}]).status_code == 200


async def test_a_client_that_sends_all_the_same_can_read_why_it_was_refused(
    server: LiveServer,
) -> None:
    """A connection that is closed amid what comes is reset, and the answer with it."""
    big = b" " * 3_000_000
    top = head("POST", CHAT, Content_Type="application/json", Content_Length=str(len(big)))
    async with connected(server.port) as wire:
        await wire.send(top + big)
        is_error(await wire.read_all(), 413, "body_too_large")


async def test_what_follows_a_refused_body_is_not_a_request(server: LiveServer) -> None:
    smuggled = head("GET", "/livez") * 100
    for path, size, status in ((CHAT, "900000", 413), ("/v1/nope", "100000", 404)):
        top = head("POST", path, Content_Length=size, Content_Type="application/json")
        async with connected(server.port) as wire:
            await wire.send(top + smuggled)
            data = await wire.read_all()
        assert data.count(b"HTTP/1.1 ") == 1
        assert parse(data)[0] == status


async def test_a_refused_key_costs_no_body(tmp_path: Path) -> None:
    settings = scripted_settings(tmp_path / "m", "m", api_key="sesame")
    with live_server(Container(settings=settings)) as server:
        async with connected(server.port) as wire:
            await wire.send(head("POST", CHAT, Content_Length="10000000", Expect="100-continue"))
            data = await wire.read_all()
    is_error(data, 401, "invalid_api_key")
    assert b"100 Continue" not in data


async def test_a_small_body_that_was_not_needed_leaves_the_connection_as_it_was(
    server: LiveServer,
) -> None:
    async with connected(server.port) as wire:
        for _ in range(3):
            await wire.send(request(BODY, "/v1/nope"))
            assert (await wire.read_answer())[0] == 404
        await wire.send(request(BODY))
        assert (await wire.read_answer())[0] == 200


@pytest.mark.parametrize("whole", [True, False])
async def test_large_heads_are_refused(server: LiveServer, whole: bool) -> None:
    async with connected(server.port) as wire:
        data = head("GET", "/livez", X="y" * 5000)
        await wire.send(data if whole else data[:-2])
        answer = await (wire.read_answer() if whole else wire.read_all())
    if isinstance(answer, tuple):
        assert answer[0] == 431
        assert json.loads(answer[1])["error"]["code"] == "headers_too_large"
    else:
        is_error(answer, 431, "headers_too_large")


NO_HTTP = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
    (b"GET / HTTP/9\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\n\r\n", 400),  # no Host
    (head("POST", "/", Transfer_Encoding="gzip"), 501),
    (head("POST", "/", Content_Length="1", Content_length="2"), 400),
    (head("POST", "/", Content_Length="9" * 500), 400),
    (head("POST", CHAT, Transfer_Encoding="chunked") + b"x\r\n", 400),
]


@pytest.mark.parametrize(("said", "status"), NO_HTTP)
async def test_what_is_no_http_is_refused_in_the_apis_shape(
    server: LiveServer, said: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server.port) as wire:
        await wire.send(said)
        is_error(await wire.read_all(), status, "invalid_http")
    await eventually(lambda: server.tasks <= 5)
    assert "Traceback" not in caplog.text


async def test_connections_too_many_are_told_so_and_liveness_still_answers(
    server: LiveServer,
) -> None:
    idle = [connected(server.port) for _ in range(20)]
    for connection in idle:
        await connection.__aenter__()
    async with connected(server.port) as wire:
        await wire.send(request(BODY))
        data = await wire.read_all()
        is_error(data, 503, "too_many_connections")
        assert b"\r\nretry-after: 1" in data
    async with connected(server.port) as wire:
        await wire.send(head("GET", "/livez"))
        assert (await wire.read_answer())[0] == 200
    for connection in idle:
        await connection.__aexit__(None, None, None)
    assert until(lambda: post(server).status_code == 200)


async def test_far_too_many_connections_are_closed_unread(tmp_path: Path) -> None:
    patient = scripted_settings(tmp_path / "m", "m", **LIMITS | {"header_timeout": 1000.0})
    with live_server(Container(settings=patient)) as server:
        async with AsyncExitStack() as stack:
            for _ in range(20 + 128):
                await stack.enter_async_context(connected(server.port))
            for _ in range(5):
                wire = await stack.enter_async_context(connected(server.port))
                with suppress(ConnectionResetError):
                    assert await wire.read() == b""
        assert until(lambda: post(server).status_code == 200)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"messages": BODY["messages"], "n": 4}, "n"),
        ("/v1/completions", {"prompt": "hi", "best_of": 4}, "best_of"),
        ("/v1/completions", {"prompt": ["hi"] * 4}, "prompt"),
        ("/v1/completions", {"prompt": ["hi", "ho"], "n": 2}, "prompt"),
        ("/v1/completions", {"prompt": ["hi"] * 513}, "prompt"),
        ("/v1/completions", {"prompt": [[1]] * 513}, "prompt"),
    ],
)
def test_more_answers_than_can_ever_be_taken_are_refused_for_good(
    tmp_path: Path, path: str, fields: dict[str, Any], param: str
) -> None:
    small = scripted_settings(tmp_path / "m", "m", max_batch_size=2, max_waiting=1)
    with live_server(Container(settings=small)) as server:
        answer = httpx.post(f"{server.url}{path}", json={"model": "m"} | fields)
        assert answer.status_code == 400
        assert error_of(answer)["param"] == param
        fewer = {name: value for name, value in fields.items() if name in ("n", "best_of")}
        fits = {"messages": BODY["messages"]} if path == CHAT else {"prompt": "hi"}
        asked = {"model": "m"} | fits | dict.fromkeys(fewer, 3)
        assert httpx.post(f"{server.url}{path}", json=asked).status_code == 200


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[LiveServer]:
    settings = scripted_settings(
        tmp_path / "m",
        "m",
        request_timeout=0.5,
        scripted={"reply": " word" * 400, "token_delay": 0.05},
    )
    with live_server(Container(settings=settings)) as live:
        yield live


def test_a_request_may_take_so_long(slow_server: LiveServer) -> None:
    for path, prompt in ((CHAT, {}), ("/v1/completions", {"prompt": "x", "max_tokens": 400})):
        answer = post(slow_server, path, **prompt)
        assert (answer.status_code, error_of(answer)["code"]) == (504, "request_timeout")
        assert answer.headers["x-should-retry"] == "false"
        assert until(lambda: slow_server.is_free)


def test_a_stream_that_takes_too_long_ends_in_an_error_event(slow_server: LiveServer) -> None:
    client = openai.OpenAI(base_url=f"{slow_server.url}/v1", api_key="x", max_retries=0)
    seen = []
    stream = client.chat.completions.create(**BODY, stream=True)
    with pytest.raises(openai.APIError, match="request_timeout") as failure:
        seen.extend(stream)
    assert failure.value.code == "request_timeout"
    assert len(seen) > 2
    assert until(lambda: slow_server.is_free)


def test_waiting_counts_too(tmp_path: Path) -> None:
    settings = scripted_settings(
        tmp_path / "m", "m", request_timeout=0.3, scripted={"load_delay": 1.0}
    )
    with live_server(Container(settings=settings)) as server:
        answer = post(server)
        assert (answer.status_code, error_of(answer)["code"]) == (504, "request_timeout")
        assert until(lambda: server.is_free)
