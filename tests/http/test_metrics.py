"""`/metrics`, read by Prometheus' own parser."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import until

BODY: dict[str, Any] = {"model": "test/model", "messages": [{"role": "user", "content": "go on"}]}
ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "portico.json"


@contextmanager
def serving(
    root: Path, settings: dict[str, object] | None = None, **script: object
) -> Iterator[LiveServer]:
    container = Container(settings=scripted_settings(root, "test/model", "other", **settings or {}))
    container.loader.override(ScriptedLoader(Script(**script)))  # type: ignore[arg-type]
    with live_server(container) as server:
        yield server


class Scrape:
    """One page, by name and labels."""

    def __init__(self, server: LiveServer, key: str = "none is asked for") -> None:
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.get(f"{server.url}/metrics", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        self.samples = [
            sample
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        ]

    def __call__(self, name: str, **labels: str) -> float | None:
        """The sum of those that have the labels; None if there are none."""
        values = [
            sample.value
            for sample in self.samples
            if sample.name == f"portico_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    def labels(self, name: str) -> set[str]:
        return {sample.labels.get(name, "") for sample in self.samples}


def ask(server: LiveServer, path: str = "chat/completions", **fields: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/{path}", json=BODY | fields, timeout=30)


def test_answers_are_counted_and_timed(tmp_path: Path) -> None:
    with serving(tmp_path, reply="one two three four", prompt_delay=0.02) as server:
        ask(server)
        ask(server, stream=True, max_tokens=2)
        assert until(lambda: Scrape(server)("e2e_request_latency_seconds_count") == 2, 10)
        scrape = Scrape(server)
    of_model = {"model_name": "test/model"}
    assert scrape("request_success_total", **of_model, finished_reason="stop") == 1
    assert scrape("request_success_total", **of_model, finished_reason="length") == 1
    assert scrape("prompt_tokens_total", **of_model) == 6
    assert scrape("generation_tokens_total", **of_model) == 6
    assert scrape("prefix_cache_queries_total", **of_model) == 6
    assert scrape("prefix_cache_hits_total", **of_model) == 0
    assert scrape("inter_token_latency_seconds_count", **of_model) == 4
    assert scrape("inter_token_latency_seconds_bucket", **of_model, le="+Inf") == 4
    for phase in ("request_queue_time", "request_prefill_time", "request_decode_time"):
        assert scrape(f"{phase}_seconds_count", **of_model) == 2
    prefill = scrape("request_prefill_time_seconds_sum", **of_model) or 0
    first_token = scrape("time_to_first_token_seconds_sum", **of_model) or 0
    total = scrape("e2e_request_latency_seconds_sum", **of_model) or 0
    assert 0.04 <= prefill <= first_token <= total
    assert scrape("model_loads_total", **of_model) == 1
    assert scrape("model_memory_bytes", **of_model) == 1000
    assert scrape("http_requests_total", handler="/v1/chat/completions", status="200") == 2


def test_what_is_under_way_is_seen(tmp_path: Path) -> None:
    words = "word " * 400
    patience = {"first_event_patience": 0.1}
    with serving(tmp_path, patience, reply=words, token_delay=0.02, slots=1) as server:
        url, body = f"{server.url}/v1/chat/completions", BODY | {"stream": True}
        with (
            httpx.stream("POST", url, json=body) as first,
            httpx.Client() as other,
        ):
            lines = first.iter_lines()
            while "word" not in next(lines):
                pass
            with other.stream("POST", url, json=body | {"stream": True}, timeout=30):
                assert until(lambda: Scrape(server)("num_requests_waiting") == 1, 10)
                scrape = Scrape(server)
                assert scrape("num_requests_running", model_name="test/model") == 1
                early = scrape("generation_tokens_total", model_name="test/model") or 0
                assert early > 0
                assert scrape("time_to_first_token_seconds_count") == 1
                assert scrape("e2e_request_latency_seconds_count") is None
                assert until(
                    lambda: (Scrape(server)("generation_tokens_total") or 0) > early + 5, 10
                )
        assert until(
            lambda: Scrape(server)("request_success_total", finished_reason="abort") == 2, 10
        )
        assert Scrape(server)("num_requests_running") == 0


def test_errors_are_counted_by_code_and_clients_make_up_no_labels(tmp_path: Path) -> None:
    with serving(tmp_path, fail_after=1) as server:
        ask(server, model="canary/nope")
        ask(server, temperature="canary")
        ask(server)
        ask(server, stream=True)
        httpx.get(f"{server.url}/canary")
        httpx.request("CANARY", f"{server.url}/v1/models")
        assert until(lambda: Scrape(server)("http_requests_total", method="OTHER") == 1, 10)
        scrape = Scrape(server)
    by_code = {
        sample.labels["code"]: sample.value
        for sample in scrape.samples
        if sample.name == "portico_request_errors_total"
    }
    assert by_code["model_not_found"] == 1
    assert by_code["invalid_type"] == 1
    assert scrape("request_errors_total", code="engine_failed", model_name="test/model") == 2
    assert by_code["http_404"] == 1
    assert by_code["http_405"] == 1
    assert scrape("model_loads_total") == 2
    assert scrape("model_evictions_total", model_name="test/model") == 2
    assert not any("canary" in str(s.labels) for s in scrape.samples)
    assert scrape.labels("model_name") == {"", "test/model"}


def test_a_first_fault_is_a_rise(tmp_path: Path) -> None:
    """What a counter begins with, `rate` and `increase` don't see."""
    with serving(tmp_path, fail_after=20) as server:
        assert Scrape(server)("request_errors_total", code="server_error") == 0
        ask(server)
        scrape = Scrape(server)
        labels = {"code": "engine_failed", "model_name": "test/model"}
        assert scrape("request_errors_total", **labels) == 0
        assert scrape("engine_deaths_total", model_name="test/model") == 0


def test_failed_loads_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path, fail_load=True) as server:
        assert ask(server).status_code == 500
        assert until(lambda: Scrape(server)("model_load_failures_total") == 1, 10)
        assert Scrape(server)("model_loads_total") == 0


def test_the_process_is_in_it_and_openmetrics_if_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        names = {sample.name for sample in Scrape(server).samples}
        assert names >= {
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_start_time_seconds",
            "portico_build_info",
            "portico_memory_budget_bytes",
        }
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        answer = httpx.get(f"{server.url}/metrics", headers=accept)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


def test_servers_share_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        ask(one)
        assert until(lambda: Scrape(one)("e2e_request_latency_seconds_count") == 1, 10)
        assert Scrape(other)("e2e_request_latency_seconds_count") is None


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    with serving(tmp_path, {"metrics": False}) as server:
        assert ask(server).status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 404


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 401), ("sesame", 200)])
def test_it_asks_for_the_key(tmp_path: Path, key: str | None, status: int) -> None:
    with serving(tmp_path, {"api_key": "sesame"}) as server:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == status


def test_a_key_for_some_models_does_not_see_all(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"sesame").hexdigest()
    keys = {"guest": {"sha256": digest, "models": ["other"]}}
    with serving(tmp_path, {"api_keys": keys}) as server:
        headers = {"Authorization": "Bearer sesame"}
        assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 403


def test_the_dashboard_shows_only_what_there_is(tmp_path: Path) -> None:
    with serving(tmp_path, fail_after=20, reply="a b c") as server:
        ask(server)
        ask(server, model="nope")
        ask(server, reply="d " * 30)
        httpx.post(f"{server.url}/api/v1/models/unload", json={"model": "test/model"})
        ask(server)
        assert until(lambda: Scrape(server)("e2e_request_latency_seconds_count") == 3, 10)
        there = {sample.name for sample in Scrape(server).samples}
        # Of what has never failed to load there is no sample yet, only its description.
        page = httpx.get(f"{server.url}/metrics").text
        there |= set(re.findall(r"# TYPE (\w+)", page))
    queries = list(expressions(json.loads(DASHBOARD.read_text("utf-8"))))
    named = {name for query in queries for name in re.findall(r"\b(?:portico|process)_\w+", query)}
    assert len(queries) > 15
    assert len(named) > 15
    assert named <= there


def test_the_alarms_are_for_what_there_is(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(- alert:.*?)```", text, re.DOTALL)
    rules = [rule["expr"] for rule in yaml.safe_load(block)]
    with serving(tmp_path) as server:
        ask(server)
        there = {sample.name for sample in Scrape(server).samples}
    named = {name for rule in rules for name in re.findall(r"\bportico_\w+(?:\(\w+\)\?)?", rule)}
    assert len(rules) == 4
    for name in named:
        assert any(re.fullmatch(name, sample) for sample in there), name
    # Two metrics that are added need the same labels; else the sum is empty, and never fires.
    assert not any(re.search(r" [-+*/] ", rule) for rule in rules)


def expressions(node: object) -> Iterator[str]:
    """Every query in the dashboard, those of variables as well."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for item in node:
            yield from expressions(item)
