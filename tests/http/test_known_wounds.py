"""Holes that servers of this kind have had (docs/security.md has the list), tried here.

What needs a real model is in tests/mlx/test_hostile_models.py; hosts, pages and keys have files of
their own.
"""

import json
import re
import socket
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.cli.serve import application
from adapters.container import Container
from domain.chat import Sampling
from domain.errors import InvalidRequest
from tests.e2e.conftest import portico_serve
from tests.http.managed import error_of
from tests.servers import LiveServer, live_server, scripted_settings

MESSAGES = [{"role": "user", "content": "hi"}]
SOURCES = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(Container(settings=scripted_settings(tmp_path / "m", "m"))) as server:
        yield server


def chat(server: LiveServer, **more: Any) -> httpx.Response:
    body = {"model": "m", "messages": MESSAGES} | more
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)


def test_starlette_is_one_without_badhost() -> None:
    """CVE-2026-48710: `Host: a/b?` made request.url.path another than the one that was routed."""
    assert tuple(map(int, version("starlette").split(".")[:3])) >= (1, 0, 1)
    code = "".join(path.read_text() for path in (SOURCES / "adapters" / "http").rglob("*.py"))
    assert "request.url" not in code
    assert ".base_url" not in code


def test_a_host_can_not_make_a_route_of_another(tmp_path: Path) -> None:
    settings = scripted_settings(tmp_path / "m", "m", api_key="sesame", allowed_hosts=["*"])
    with live_server(Container(settings=settings)) as server:
        for host in ("localhost/livez?", "a/livez?", "x@localhost/livez#", "localhost"):
            for path in ("/v1/models", "/v1/models?x=/livez", "/v1/models#/livez", "//v1/models"):
                answer = httpx.get(f"{server.url}{path}", headers={"Host": host})
                assert answer.status_code == (401 if host == "localhost" else 403)


@pytest.mark.parametrize("n", [-1, 0, 9, 129, 10**9, 2**31, 2**63, 10**40, 1.5, "9"])
def test_choices_are_bounded(server: LiveServer, n: object) -> None:
    """vLLM CVE-2026-34756."""
    for path, prompt in (
        ("chat/completions", {"messages": MESSAGES}),
        ("completions", {"prompt": "x"}),
    ):
        for field in ("n", "best_of") if path == "completions" else ("n",):
            body = {"model": "m", field: n} | prompt
            answer = httpx.post(f"{server.url}/v1/{path}", json=body)
            assert (answer.status_code, error_of(answer)["param"]) == (400, field)
    assert server.snapshot.residents == ()


@pytest.mark.parametrize(
    "field",
    ["max_tokens", "max_completion_tokens", "top_p", "min_p", "top_logprobs", "temperature"],
)
def test_negative_numbers_stop_at_the_edge(server: LiveServer, field: str) -> None:
    """llama.cpp CVE-2026-21869: a negative count went as far as memory."""
    more = {"logprobs": True} if field == "top_logprobs" else {}
    for number in (-1, -(2**63), -1e308):
        assert chat(server, **{field: number}, **more).status_code == 400
    if field not in ("max_completion_tokens",):
        with pytest.raises(InvalidRequest):
            Sampling(**{field: -1})  # callers in-process as well


def test_a_bad_schema_or_tool_harms_nobody_else(server: LiveServer) -> None:
    """vLLM CVE-2025-48944 and #17313: one request ended the engine of all."""
    schemas: list[Any] = [
        {"type": "nonesuch"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"pattern": "("},
        {"enum": []},
        {"minItems": 10**9, "type": "array"},
    ]
    for schema in schemas:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        for more in ({"response_format": form}, {"tools": [tool], "tool_choice": "required"}):
            assert chat(server, **more).status_code in (200, 400)
    assert chat(server).json()["choices"][0]["message"]["content"] == "hi"


def test_headers_have_an_end(tmp_path: Path) -> None:
    """vLLM CVE-2025-48956: a request of headers alone took all memory."""
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        host, port = program.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: "
            try:
                connection.sendall(head)
                for _ in range(4096):  # 64 MiB, if nobody stops it
                    connection.sendall(b"x" * 16384)
                pytest.fail("headers were read without end")
            except OSError:
                pass  # it hung up
        assert httpx.get(f"{program.url}/livez").status_code == 200


URLS = [
    "http://127.0.0.1:PORT/x.png",
    "https://127.0.0.1:PORT/x.png",
    "http://localhost:PORT/x.png",
    "http://[::ffff:127.0.0.1]:PORT/x.png",
    "http://2130706433:PORT/x.png",
    "http://127.1:PORT/x.png",
    "http://evil.test@127.0.0.1:PORT/x.png",
    "http://127.0.0.1:PORT\\@evil.test/x.png",
    "//127.0.0.1:PORT/x.png",
    "http://169.254.169.254/latest/meta-data/",
    "file:///etc/passwd",
    "ftp://127.0.0.1:PORT/x",
    "gopher://127.0.0.1:PORT/x",
    "/etc/passwd",
    "",
]


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port, and who has come to it."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]

        def wait() -> None:
            while True:
                connection, address = door.accept()
                connection.close()
                if came and came[-1] == "closing":
                    return
                came.append(address)

        waiting = threading.Thread(target=wait)
        waiting.start()
        yield port, came
        visitors = list(came)
        came.append("closing")
        socket.create_connection(("127.0.0.1", port)).close()
        waiting.join(10)
        came[:] = visitors


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_nothing_is_fetched_for_a_client(
    server: LiveServer, listener: tuple[int, list[object]], kind: str
) -> None:
    """vLLM CVE-2025-6242, CVE-2026-24779: the server asked its own network for others."""
    port, came = listener
    for url in URLS:
        place = url.replace("PORT", str(port))
        part = {"type": kind, kind: {"url": place, "data": place, "file_url": place}}
        messages = [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]
        answer = chat(server, messages=messages)
        assert answer.status_code == 400, url
        assert error_of(answer)["param"].startswith("messages")
        assert "image_url" in error_of(answer)["message"]
    for model in (f"http://127.0.0.1:{port}/x", f"127.0.0.1:{port}/x/y", f"//127.0.0.1:{port}"):
        pull = httpx.post(f"{server.url}/api/v1/pulls", json={"model": model})
        assert pull.status_code == 400
    assert came == []


def test_no_parameter_turns_code_on_or_names_a_path(server: LiveServer) -> None:
    """vLLM CVE-2026-22807, CVE-2026-27893; mlx-lm's server: `adapters`, `draft_model`."""
    for field, value in (
        ("trust_remote_code", True),
        ("adapters", "/etc"),
        ("draft_model", "../x"),
        ("role_mapping", {"a": "b"}),
        ("chat_template", "{{ x }}"),
        ("documents", [{"a": 1}]),
    ):
        answer = chat(server, **{field: value})
        assert (answer.status_code, error_of(answer)["param"]) == (400, field)
    described = json.dumps(application(server.container).openapi())
    assert not re.search(r"trust_remote|adapter_path|local_path|file_path|image_path", described)


def test_there_is_no_way_to_upload_or_make_a_model(server: LiveServer) -> None:
    """Ollama CVE-2024-37032, CVE-2026-7482, CVE-2025-1975, CVE-2026-5530."""
    digest = "sha256:" + "../" * 8 + "etc/passwd"
    for method, path in (
        ("POST", "/api/create"),
        ("POST", "/api/push"),
        ("POST", f"/api/blobs/{digest}"),
        ("PUT", "/v1/models/m"),
        ("PUT", "/api/v1/models/m"),
        ("POST", "/v1/files"),
        ("POST", "/api/v1/models"),
    ):
        assert httpx.request(method, f"{server.url}{path}", content=b"x").status_code in (404, 405)
    document = application(server.container).openapi()
    bodies = json.dumps(document["paths"])
    assert "multipart/form-data" not in bodies
    assert "octet-stream" not in bodies
    assert {m for item in document["paths"].values() for m in item} <= {"get", "post", "delete"}


def test_of_mlx_lm_the_server_is_not_used() -> None:
    """Its server logs raw bodies, allows every page and takes paths from bodies."""
    code = {path: path.read_text() for path in (SOURCES / "adapters").rglob("*.py")}
    assert len(code) > 100
    banned = re.compile(r"mlx_lm\.server|mlx_lm import server|sharded_load|\beval\(|\bexec\(")
    found = {str(path) for path, text in code.items() if banned.search(_code(text))}
    assert found == set()


def test_pickles_are_read_from_our_own_engine_processes_alone() -> None:
    """Over a socket pair that nobody else has an end of (docs/adr/0005-engine-processes.md)."""
    adapters = SOURCES / "adapters"
    code = {path: _code(path.read_text()) for path in adapters.rglob("*.py")}
    unpickles = re.compile(r"pickle|marshal|shelve|multiprocessing\.connection")
    found = {path for path, text in code.items() if unpickles.search(text)}
    assert found == {adapters / "isolated" / "channel.py"}


def _code(text: str) -> str:
    """Without MLX's own eval, and without what is only said."""
    return re.sub(
        r'mx\.(async_)?eval\(|\.eval\(|"[^"\n]*"|#.*', "", re.sub(r'"""[\s\S]*?"""', "", text)
    )
