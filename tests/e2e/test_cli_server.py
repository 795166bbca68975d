"""`portico ps`, `load` and `unload` against a live server."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from adapters.container import Container
from tests.command_line import portico
from tests.servers import LiveServer, live_server, scripted_settings


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    settings = scripted_settings(
        tmp_path / "models",
        "org/one",
        "two",
        models_dir=tmp_path / "mine",
        scripted={"reply": "word " * 500, "token_delay": 0.05},
    )
    with live_server(Container(settings=settings)) as server:
        monkeypatch.setenv("PORTICO_URL", server.url)
        yield server


def test_a_model_is_loaded_shown_and_unloaded(server: LiveServer) -> None:
    loaded = portico("load", "org/one")
    assert (loaded.exit_code, loaded.stdout) == (0, "org/one is loaded.\n")
    shown = portico("ps")
    assert shown.exit_code == 0
    head, row, summary = (line.split() for line in shown.stdout.splitlines())
    assert head == "Model State Memory Context Requests Waiting Idle Pinned".split()
    assert row[:2] == ["org/one", "hot"]
    assert row[4:7] == ["512", "0", "0"]
    assert row[7].endswith("s") and row[8:] == ["-"]
    assert summary[5:8] == ["in", "use.", "Portico"]
    unloaded = portico("unload", "org/one")
    assert (unloaded.exit_code, unloaded.stdout) == (0, "org/one is out of memory.\n")
    assert portico("unload", "org/one").stdout == "org/one was not in memory.\n"
    assert "org/one" not in portico("ps").stdout


def test_scripts_get_what_the_server_says(server: LiveServer) -> None:
    loaded = json.loads(portico("load", "two", "--pin", "--json").stdout)
    assert (loaded["id"], loaded["state"], loaded["pinned"]) == ("two", "hot", True)
    status = json.loads(portico("ps", "--json").stdout)
    assert [resident["id"] for resident in status["residents"]] == ["two"]
    assert status["memory_used"] == status["residents"][0]["memory"]["total"]
    unloaded = json.loads(portico("unload", "two", "--json").stdout)
    assert unloaded == {"model": "two", "was_loaded": True}


def test_a_busy_model_goes_only_by_force(server: LiveServer) -> None:
    question = {"model": "two", "stream": True, "messages": [{"role": "user", "content": "Go on."}]}
    url = f"{server.url}/v1/chat/completions"
    with httpx2.stream("POST", url, json=question, timeout=30) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if "word" in line)
        refused = portico("unload", "two")
        assert refused.exit_code == 1
        assert refused.stderr.startswith("portico: The model `two` has requests (1).")
        assert portico("unload", "two", "--force").exit_code == 0
        assert any("was unloaded amid this request" in line for line in lines)


@pytest.mark.parametrize("command", ["load", "unload"])
def test_the_servers_refusal_is_told(server: LiveServer, command: str) -> None:
    answer = portico(command, "nope", "--json")
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("portico: The model `nope` does not exist")


def test_the_key_of_the_settings_is_shown_to_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = scripted_settings(tmp_path / "models", "one", api_key="secret")
    with live_server(Container(settings=settings)) as server:
        refused = portico("ps", "--url", server.url)
        assert refused.exit_code == 1
        assert refused.stderr.endswith("PORTICO_API_KEY holds the key.\n")
        monkeypatch.setenv("PORTICO_API_KEY", "secret")
        assert portico("ps", "--url", f"{server.url}/").exit_code == 0


def test_without_a_server_there_is_a_sentence() -> None:
    answer = portico("ps", "--url", "http://127.0.0.1:9")
    assert answer.exit_code == 1
    assert answer.stderr == (
        "portico: no server answers at http://127.0.0.1:9. `portico serve` starts one; --url or "
        "PORTICO_URL names another.\n"
    )
    assert "can't be asked" in portico("ps", "--url", "127.0.0.1:9").stderr


class Other(http.server.BaseHTTPRequestHandler):
    """Some other program on the port."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


def test_another_program_on_the_port_is_told_from_portico() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        answer = portico("ps", "--url", url)
        other.shutdown()
    assert answer.exit_code == 1
    assert answer.stderr == f"portico: what answers at {url} is not Portico (status 404).\n"
