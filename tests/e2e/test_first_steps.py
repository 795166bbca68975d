"""As a new user: search, pull, chat, delete. The real program, a hub on loopback."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.mlx import demo
from tests.stub_hub import Fault, StubHub, stub_hub
from tests.terminal import command, on_a_terminal

MODEL = "mlx-community/portico-demo"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("PORTICO_MODELS_DIR", str(tmp_path / "mine"))
    with stub_hub() as hub:
        hub.add_folder(MODEL, demo.FOLDER, downloads=4321, parameters={"BF16": 1_446_784})
        hub.add("mlx-community/other", {"config.json": b"{}"}, downloads=7)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def portico(*arguments: str, said: str = "") -> str:
    done = subprocess.run(  # noqa: S603 - our own program
        command(*arguments), input=said, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def seen_on_a_terminal(*arguments: str, said: str = "") -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_a_terminal(command(*arguments), {}, said=said))


def test_search_pull_chat_delete(hub: StubHub) -> None:
    found = portico("search", "portico")
    assert re.search(rf"{MODEL} +4,321 +2\.9 MB .* 2026-01-02 +- *\n", found)

    pulled = portico("pull", MODEL)
    assert pulled.endswith(f"Chat with it: portico chat {MODEL}\n")

    answer = portico("chat", MODEL, said="What is Portico?")
    assert answer.startswith("Portico is an OpenAI-compatible inference server")

    deleted = portico("models", "rm", MODEL, "--yes")
    assert deleted.startswith(f"Deleted {MODEL}; ")

    assert MODEL not in portico("models")
    assert re.search(rf"{MODEL} .* - *\n", portico("search", "portico"))


def test_a_terminal_shows_a_bar_and_is_asked(hub: StubHub) -> None:
    hub.faults.append(Fault(path="/cdn/", rate=4_000_000))
    seen = seen_on_a_terminal("pull", MODEL)
    for words in ("━━", "downloading", " of 3.0 MB", "MB/s", "left", "files"):
        assert words in seen
    assert "yes" in portico("search", "portico")
    asked = seen_on_a_terminal("models", "rm", MODEL, said="y\n")
    assert "Delete mlx-community/portico-demo (" in asked
    assert json.loads(portico("search", "portico", "--json"))["data"][0]["cached"] is False


def test_a_pull_that_was_stopped_goes_on(hub: StubHub) -> None:
    hub.faults.append(Fault(path="/cdn/", rate=1_500_000, times=1))
    process = subprocess.Popen(  # noqa: S603 - our own program
        command("pull", MODEL, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    progresses = (json.loads(line) for line in process.stdout)
    done = next(p["bytes_done"] for p in progresses if p["bytes_done"] > 500_000)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "portico: stopped. The same command goes on from here.\n"
    assert MODEL not in portico("models")

    lines = [json.loads(line) for line in portico("pull", MODEL, "--json").splitlines()]
    began = next(line["bytes_done"] for line in lines if line["phase"] == "downloading")
    assert began >= done
    assert Path(lines[-1]["location"], "config.json").is_file()


def test_a_model_of_the_hub_is_converted(hub: StubHub) -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        command("convert", MODEL, "--json"), capture_output=True, check=True, timeout=60
    )
    told = json.loads(done.stdout)
    assert b"done" in done.stderr
    assert told["id"] == "portico-demo-4bit"
    assert told["size_bytes"] < told["source"]["size_bytes"] / 2
    assert portico("chat", "portico-demo-4bit", said="What is Portico?")


def test_what_the_hub_does_not_have_is_a_line(hub: StubHub) -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        command("pull", "nobody/nothing"), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert re.fullmatch(r"portico: .*nobody/nothing.*\n", done.stderr)
    assert "Traceback" not in done.stderr
