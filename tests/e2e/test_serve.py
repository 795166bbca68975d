"""The server as a process: it listens early, drains, and ends cleanly."""

import os
import re
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import portico_serve
from tests.waiting import until

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}], "stream": True}


def test_it_listens_before_any_model_is_loaded(tmp_path: Path) -> None:
    with portico_serve(tmp_path) as program:
        models = httpx.get(f"{program.url}/v1/models").json()["data"]
        assert [model["state"] for model in models] == ["loadable"]
        assert httpx.get(f"{program.url}/livez").status_code == 200


def test_it_runs_out_of_files_in_silence_and_goes_on(tmp_path: Path) -> None:
    with (
        portico_serve(tmp_path, "--backend", "scripted", files=60) as program,
        ExitStack() as stack,
    ):
        port = httpx.URL(program.url).port or 0
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        time.sleep(1.5)
        stack.close()
        assert until(lambda: httpx.get(f"{program.url}/livez").status_code == 200, 20)
    said = "".join(program.output)
    assert "connections can't be taken" in said
    assert "Traceback" not in said
    assert len(program.output) < 20


def test_streams_finish_after_sigterm_and_the_exit_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_SCRIPTED__REPLY", "word " * 40)
    monkeypatch.setenv("PORTICO_SCRIPTED__TOKEN_DELAY", "0.02")
    said: list[str] = []
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        started = threading.Event()

        def read() -> None:
            with httpx.stream("POST", f"{program.url}/v1/chat/completions", json=BODY) as answer:
                for line in answer.iter_lines():
                    said.append(line)
                    started.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert started.wait(10)
        program.process.send_signal(signal.SIGTERM)
        reader.join(20)
        program.process.wait(20)
    assert "data: [DONE]" in said
    assert program.process.returncode in (0, -signal.SIGTERM)


def test_engine_processes_outlive_the_signal_that_starts_the_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_ISOLATION", "process")
    monkeypatch.setenv("PORTICO_SCRIPTED__REPLY", "word " * 40)
    monkeypatch.setenv("PORTICO_SCRIPTED__TOKEN_DELAY", "0.02")
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        with httpx.stream("POST", f"{program.url}/v1/chat/completions", json=BODY) as answer:
            lines = answer.iter_lines()
            said = [next(lines)]
            told = re.compile(r"runs in process (\d+)")
            assert until(lambda: told.search(" ".join(program.output)))
            engine = int(told.findall(" ".join(program.output))[0])
            for process in (engine, program.process.pid):  # as service managers do
                os.kill(process, signal.SIGTERM)
            said += lines
        program.process.wait(20)
    assert "data: [DONE]" in said
    with pytest.raises(ProcessLookupError):
        os.kill(engine, 0)


def test_without_grace_it_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_SCRIPTED__REPLY", "word " * 400)
    monkeypatch.setenv("PORTICO_SCRIPTED__TOKEN_DELAY", "0.1")
    monkeypatch.setenv("PORTICO_SHUTDOWN_GRACE", "0")
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        with httpx.stream("POST", f"{program.url}/v1/chat/completions", json=BODY) as answer:
            assert next(answer.iter_lines())
            program.process.send_signal(signal.SIGTERM)
            program.process.wait(20)  # the stream would take 40 seconds


def test_who_watches_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        with httpx.stream("GET", f"{program.url}/api/v1/events") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: snapshot"
            began = time.monotonic()
            program.process.send_signal(signal.SIGTERM)
            list(lines)  # it comes to its end, and is not cut
            program.process.wait(20)
        assert time.monotonic() - began < 10  # of a grace of 30
