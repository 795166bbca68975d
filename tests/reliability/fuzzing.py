"""A server in a process of its own that anything is sent to, and what must hold of each answer."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from adapters.cli.serve import application
from adapters.container import Container
from adapters.settings import Settings
from tests.e2e.conftest import Program, portico_serve
from tests.servers import model_folder

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))  # `make fuzz` sends 10,000
MOST_GROWTH = 50e6  # bytes
JSON = "application/json"

many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
fewer = settings(many, max_examples=max(EXAMPLES // 10, 10))  # schemathesis takes its time


def document() -> dict[str, Any]:
    """The OpenAPI description of a server on scripted engines."""
    app = application(Container(settings=Settings(backend="scripted")))
    description: dict[str, Any] = app.openapi()
    return description


def operations() -> list[tuple[str, str]]:
    """Every method and path that there is."""
    paths = document()["paths"]
    return [(method, path) for path, item in paths.items() for method in item]


@dataclass(frozen=True)
class Target:
    program: Program
    client: httpx.Client

    @property
    def memory(self) -> int:
        """Resident bytes."""
        resident: int = psutil.Process(self.program.process.pid).memory_info().rss
        return resident

    def send(self, method: str, path: str, content: bytes, headers: dict[str, str]) -> None:
        """Whatever it is, it must not be the server's fault; errors have one shape."""
        with self.client.stream(method, path, content=content, headers=headers) as answer:
            is_feed = method == "GET" and "event-stream" in answer.headers["content-type"]
            body = b"" if is_feed else answer.read()  # a feed has no end
        # 504 and the like are other people's fault; here there are none, the hub is off.
        fine = answer.status_code < 500 or _is_offline(body)
        assert fine, f"{method} {path} {content!r} {headers}: {answer.status_code} {body!r}"
        if 400 <= answer.status_code:
            assert set(json.loads(body)) == {"error"}
            assert answer.headers["x-request-id"].startswith("req_")


def _is_offline(body: bytes) -> bool:
    """Downloads and searches, with `offline` set, are answered with 503."""
    return b'"code":"offline"' in body


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """Without a traceback in its log at the end, and not much larger than after the first words."""
    models = folder / "models"
    model_folder(models, "m")
    config = folder / "portico.toml"
    config.write_text(
        f"available_models = [{json.dumps(str(models))}]\nbackend = 'scripted'\noffline = true\n"
        "log_level = 'warning'\nfirst_event_patience = 0.2\n"
    )
    flags = ("--log-level", "info", "--config", str(config))
    with portico_serve(folder, *flags) as program, httpx.Client(base_url=program.url) as client:
        yield Target(program, client)
        assert program.process.poll() is None, "it is gone"
    assert "Traceback" not in "".join(program.output)


GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "m", "prompt": "hi"},
    "/api/v1/models/load": {"model": "m"},
    "/api/v1/models/unload": {"model": "m"},
    "/api/v1/models/pin": {"model": "m", "pinned": False},
    "/api/v1/estimate": {"model": "m"},
    "/api/v1/pulls": {"model": "owner/name"},
}

HOSTILE = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"1000000000",
    b"-1000000000",
    b"9" * 400,
    b"9" * 5000,
    b"0.1e-400",
    b'"\\u0000"',
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b'"\x00"',
    b'"\xff\xfe"',
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b"[" * 10_000,
    b"[" + b"{}," * 2_000 + b"{}]",
    b'"' + b"x" * 100_000 + b'"',
    b'"../../etc/passwd"',
    b'"http://169.254.169.254/"',
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"",
]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


def fields(path: str) -> list[str]:
    """What a body of that path may have, and what it may not."""
    description = document()
    body = description["paths"][path]["post"].get("requestBody")
    if body is None:
        return ["x"]
    name = body["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
    return [*description["components"]["schemas"][name]["properties"], "x", "functions", "audio"]


def bodies(path: str) -> st.SearchStrategy[bytes]:
    """Good ones with some fields changed, hostile values in their place, and noise."""
    base = GOOD.get(path, {})
    names = st.sampled_from(fields(path))
    hostile = anything.map(lambda value: json.dumps(value).encode()) | st.sampled_from(HOSTILE)
    changed = st.dictionaries(names, hostile, min_size=1, max_size=4).map(
        lambda changes: _written(base, changes)
    )
    return changed | st.sampled_from(HOSTILE) | st.binary()


def _written(base: dict[str, Any], changes: dict[str, bytes]) -> bytes:
    raw = {name: json.dumps(value).encode() for name, value in base.items()} | changes
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), text) for name, text in raw.items()) + b"}"


def kinds() -> st.SearchStrategy[dict[str, str]]:
    """Mostly the content type that is asked for."""
    other = st.sampled_from(
        ["", "text/plain", "multipart/form-data", f"{JSON}; charset=utf-16", "application/xml", "x"]
    )
    usual = st.just(JSON)
    return (usual | usual | usual | usual | other).map(lambda kind: {"content-type": kind})
