"""What a key shares, and where the work for its request is done; on a real model, over HTTP."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import PreTrainedTokenizerBase

from adapters.container import Container
from adapters.settings import Settings
from tests.http.managed import error_of
from tests.servers import LiveServer, live_server

KEYS: dict[str, dict[str, Any]] = {
    "one": {},
    "other": {},
    "mate": {"cache_scope": "team"},
    "peer": {"cache_scope": "team"},
}


@pytest.fixture
def server(tiny_model: Path) -> Iterator[LiveServer]:
    keys = {
        name: {"sha256": hashlib.sha256(name.encode()).hexdigest()} | more
        for name, more in KEYS.items()
    }
    settings = Settings(available_models=(str(tiny_model),), api_keys=keys)  # type: ignore[arg-type]
    with live_server(Container(settings=settings)) as server:
        yield server


def ask(server: LiveServer, key: str, **more: Any) -> httpx.Response:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "A secret that is long enough to be kept. " * 4}],
        "max_tokens": 2,
    }
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, json=body | more, headers=headers, timeout=60)


def cached(answer: httpx.Response) -> int:
    details = answer.json()["usage"]["prompt_tokens_details"]
    return int(details["cached_tokens"])


def test_the_prefix_cache_tells_no_key_what_another_has_asked(server: LiveServer) -> None:
    """GHSA-rm76-4mrf-v9r8, and the timing of a shared cache (vLLM's RFC #16016)."""
    assert cached(ask(server, "one")) == 0
    assert cached(ask(server, "one")) > 0
    assert cached(ask(server, "other")) == 0
    assert cached(ask(server, "mate")) == 0
    assert cached(ask(server, "peer")) > 0  # as it is set


@pytest.mark.parametrize(
    "option",
    [
        {"tokenize": True},
        {"padding": "max_length", "max_length": 10**9},
        {"messages": []},
        {"tools": [1]},
        {"add_generation_prompt": False},
        {"chat_template": "{{ 1 }}"},
        {"return_tensors": "pt"},
        {"enable_thinking": "x" * 1000},
    ],
)
def test_template_options_do_not_reach_the_tokenizer(
    server: LiveServer, option: dict[str, Any]
) -> None:
    """vLLM CVE-2025-62426: one request held up the event loop of all."""
    answer = ask(server, "one", chat_template_kwargs=option)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "chat_template_kwargs")


def test_templates_are_rendered_on_the_thread_of_the_model(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    render = PreTrainedTokenizerBase.apply_chat_template

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        threads.add(threading.current_thread().name)
        return render(self, *args, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerBase, "apply_chat_template", noting)
    assert ask(server, "one").status_code == 200
    assert threads == {"mlx tiny"}
