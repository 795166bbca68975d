"""Canaries in the key, the hub's token and the prompt, on every path of failure, at level debug."""

import io
import logging
import os
import socket
import traceback
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.cli.serve import application
from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedEngine, ScriptedLoader
from adapters.settings import Settings
from application.ports import Engine
from application.trace import wordless
from domain.chat import ChatCommand, TextCommand
from domain.memory import LoadPlan
from domain.models import ModelCard
from domain.outputs import End, EngineOutput
from tests.e2e.conftest import portico_serve
from tests.servers import live_server, model_folder, scripted_settings
from tests.waiting import until

KEY, TOKEN, PROMPT = "key-canary", "hf_token-canary", "prompt-canary"
HEADERS = {"Authorization": f"Bearer {KEY}"}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": PROMPT}]} | more


BAD_BODIES: list[dict[str, Any]] = [
    {"json": chat(model="nonesuch")},
    {"json": chat(model="../m")},
    {"json": chat(model="a\r\nb/c\r\nforged: line")},
    {"json": chat(temperature=PROMPT)},
    {"json": chat(n=10**9)},
    {"json": chat(stop=[PROMPT] * 5)},
    {"json": chat(tools=[{"type": PROMPT}])},
    {"json": chat(tool_choice={"type": "function", "function": {"name": "x"}})},
    {"json": chat(response_format={"type": "regex", "regex": f"({PROMPT}"})},
    {"json": chat(response_format={"type": "json_schema", "json_schema": {"x": PROMPT}})},
    {"json": chat(messages=[{"role": PROMPT, "content": PROMPT}])},
    {"json": chat(messages=[{"role": "user", "content": [{"type": "text", "text": [PROMPT]}]}])},
    {"json": chat(messages=PROMPT)},
    {"json": chat(messages=[{"role": "user", "content": f"{PROMPT} " * 600}])},
    {"json": [PROMPT]},
    {"content": b'{"messages": "' + PROMPT.encode() + b'\xff"}'},
    {"content": b'{"messages": "' + PROMPT.encode()},
    {"content": PROMPT.encode(), "headers": {"Content-Type": "text/plain"}},
    {"content": b"x" * 200_000 + PROMPT.encode()},
]


def provoke(url: str) -> list[httpx.Response]:
    """Every way to fail that a client has."""
    answers = []
    with httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client:
        json_type = {"Content-Type": "application/json"}
        for body in BAD_BODIES:
            sent = body | {"headers": json_type | body.get("headers", {})}
            answers += [client.post(path, **sent) for path in (CHAT, TEXT)]
        answers += [
            client.post(CHAT, json=chat(stream=True)),
            client.post(CHAT, json=chat()),
            client.post(TEXT, json={"model": "m", "prompt": PROMPT, "stream": True}),
            client.post(CHAT, json=chat(), headers={"Authorization": f"Bearer {KEY}x"}),
            client.post(CHAT, json=chat(), headers={"Authorization": f"Basic {KEY}"}),
            client.post(CHAT, json=chat(), headers={"Host": "evil.test"}),
            client.post(CHAT, json=chat(), headers={"Origin": "http://evil.test"}),
            client.put(CHAT, json=chat()),
            client.get(f"/nonesuch?key={KEY}&prompt={PROMPT}"),
            client.get("/v1/models/x%0d%0aforged: line"),
            client.get("/v1/x%0d%0aforged: line"),
            client.post("/api/v1/pulls", json={"model": "org/nonesuch", "revision": "../x"}),
            client.post("/api/v1/models/load", json={"model": "nonesuch"}),
            client.get("/api/v1/search?q=qwen"),
        ]
        pull = client.post("/api/v1/pulls", json={"model": "org/model"})
        job = f"/api/v1/pulls/{pull.json().get('id')}"
        assert until(lambda: client.get(job).json().get("state") != "running")
        answers += [pull, client.get(job), client.get("/api/v1/pulls")]
        answers += [client.get(path) for path in ("/metrics", "/readyz", "/api/v1/status")]
    return answers


def leave_amid_a_request(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: 999\r\n\r\n"
            f'{{"x": "{PROMPT}'.encode()
        )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{KEY} {PROMPT} \x01\r\n\r\n".encode())
        connection.recv(4096)


def test_a_server_at_level_debug_keeps_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program itself, with all that it logs through uvicorn and the hub's client."""
    model_folder(tmp_path / "models", "m", context=256)
    (tmp_path / "portico.toml").write_text(
        f'backend = "scripted"\navailable_models = ["{tmp_path / "models"}"]\nlog_level = "debug"\n'
        "max_body_mb = 0.1\n[scripted]\nfail_after = 1\n"
    )
    for name, value in {
        "PORTICO_API_KEY": KEY,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:1",  # nobody is there
        "HF_DEBUG": "1",
        "HF_HUB_VERBOSITY": "debug",
        "PYTHONASYNCIODEBUG": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with portico_serve(tmp_path) as program:
        answers = provoke(program.url)
        leave_amid_a_request(program.url)
        assert until(lambda: "/nonesuch" in "".join(program.output), 20)
    log = "".join(program.output)
    assert {200, 400, 401, 403, 404, 405, 413, 500} <= {answer.status_code for answer in answers}
    assert_clean(log, answers)
    # Lines of a log that a client could have forged would begin with its own words.
    assert not [line for line in program.output if line.startswith(("forged", "b/c"))]


def assert_clean(log: str, answers: list[httpx.Response]) -> None:
    for canary in (KEY, TOKEN, PROMPT):
        assert canary not in log, [line for line in log.splitlines() if canary in line]
    for answer in answers:
        for canary in (KEY, TOKEN):
            assert canary not in answer.text + repr(answer.headers)
        if answer.status_code != 200:
            assert PROMPT not in answer.text, answer.text


class LeakyEngine(ScriptedEngine):
    """Breaks as no engine should, and shouts what it was told."""

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        if command:
            raise ValueError(command)
        yield End("stop")


class LeakyLoader(ScriptedLoader):
    async def load(self, card: ModelCard, plan: LoadPlan) -> Engine:  # type: ignore[override]
        return LeakyEngine(card, plan, Script())


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """What all loggers of the process say, at level debug."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(before)
    root.removeHandler(handler)


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_that_nobody_foresaw_is_told_without_the_prompt(
    tmp_path: Path, everything_logged: io.StringIO, stream: bool
) -> None:
    container = Container(settings=scripted_settings(tmp_path / "models", "m", api_key=KEY))
    container.loader.override(LeakyLoader(Script()))
    with live_server(container) as server:
        answer = httpx.post(f"{server.url}{CHAT}", json=chat(stream=stream), headers=HEADERS)
    assert answer.status_code == 500
    assert_clean(everything_logged.getvalue(), [answer])
    assert "ValueError" in everything_logged.getvalue()
    assert "in generate" in everything_logged.getvalue()  # where to look


def test_a_trace_tells_places_of_all_causes_and_no_words() -> None:
    def break_twice() -> None:
        try:
            raise KeyError(PROMPT)
        except KeyError as error:
            raise RuntimeError(f"no {PROMPT}") from error

    with pytest.raises(RuntimeError) as failure:
        break_twice()
    text = "".join(traceback.format_exception(wordless(failure.value)))
    assert text.index("Fault: KeyError") < text.index("Fault: RuntimeError")
    assert text.count("in break_twice") == 2
    assert PROMPT not in text


def test_nothing_that_holds_a_secret_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    password = "password-canary"  # noqa: S105 - a canary
    settings = Settings(api_key=KEY, ssl_certfile="c.pem", ssl_keyfile_password=password)  # type: ignore[arg-type]
    container = Container(settings=settings)
    shown = [settings, container.source(), application(container).user_middleware, vars(container)]
    assert not [thing for thing in shown if "canary" in repr(thing) + str(thing)]
    assert os.environ["HF_TOKEN"] == TOKEN
