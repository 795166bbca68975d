"""What the program writes down, as a service would collect it."""

import json
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import portico_serve
from tests.waiting import until


def test_every_line_is_an_object_and_a_request_has_one(tmp_path: Path) -> None:
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        body = {"messages": [{"role": "user", "content": "canary one two"}]}
        answer = httpx.post(f"{program.url}/v1/chat/completions", json=body)
        httpx.get(f"{program.url}/v1/models/a%0d%0aforged%1b[31m")
        assert until(lambda: any("forged" in line for line in program.output), 10)
    records = [json.loads(line) for line in program.output]
    assert all({"time", "level", "logger", "message"} <= set(record) for record in records)
    request_id = answer.headers["x-request-id"]
    (line,) = [record for record in records if record.get("request_id") == request_id]
    assert (line["status"], line["model"], line["completion_tokens"]) == (200, "portico/demo", 3)
    assert line["total_ms"] >= line["ttft_ms"] >= line["queue_ms"] >= 0
    assert "canary" not in "".join(program.output)


def test_a_misspelt_variable_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_MAX_WAITNG", "1")
    with portico_serve(tmp_path, "--backend", "scripted") as program:
        pass
    (line,) = [json.loads(line) for line in program.output if "MAX_WAITNG" in line]
    assert line["level"] == "WARNING"


def test_people_get_lines(tmp_path: Path) -> None:
    (tmp_path / "portico.toml").write_text('log_format = "human"\nbackend = "scripted"\n')
    with portico_serve(tmp_path) as program:
        httpx.get(f"{program.url}/v1/models")
        assert until(lambda: any("/v1/models" in line for line in program.output), 10)
    (line,) = [line for line in program.output if "/v1/models" in line]
    assert " INFO     GET /v1/models 200 req_" in line
    assert "total_ms=" in line
