"""Legacy completions and the model list, read by the official client."""

import json
import re
from urllib.parse import urljoin

import httpx
import openai
import pytest
from openai.types import Completion, Model

from tests.servers import LiveServer


def test_a_completion_continues_a_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="test/model", prompt="greet")
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "Hello there, dear reader."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_a_streamed_completion_says_the_same(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="test/model",
            prompt="greet",
            stream=True,
            logprobs=2,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "Hello there, dear reader."
    assert chunks[-1].usage is not None
    offsets = [
        c.choices[0].logprobs.text_offset for c in chunks if c.choices and c.choices[0].logprobs
    ]
    assert [offset for part in offsets for offset in part or ()] == [0, 5, 12, 17]


def test_markup_is_text_in_a_completion(client: openai.OpenAI) -> None:
    assert (
        "<think>" in client.completions.create(model="test/model", prompt="think").choices[0].text
    )


def test_sixteen_tokens_are_the_default(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="test/model", prompt="word " * 30)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_token_ids_are_a_prompt(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="test/model", prompt=[1, 2, 3])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_completions_are_valid_in_the_clients_own_types(server: LiveServer) -> None:
    body = {"model": "test/model", "prompt": "greet", "logprobs": 1}
    whole = httpx.post(f"{server.url}/v1/completions", json=body)
    Completion.model_validate_json(whole.content, strict=True)
    streamed = httpx.post(f"{server.url}/v1/completions", json=body | {"stream": True})
    for event in streamed.text.split("\n\n")[:-2]:
        chunk = json.loads(event.removeprefix("data: "))
        for choice in chunk["choices"]:
            # The client has no type of its own for these chunks: in its Completion the reason
            # can't be null, and in OpenAI's streams it is, until the last.
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        Completion.model_validate(chunk, strict=True)


def test_models_are_listed_with_their_state(client: openai.OpenAI) -> None:
    before = {model.id: model for model in client.models.list()}
    assert set(before) == {"test/model", "other"}
    assert before["test/model"].owned_by == "test"
    assert before["test/model"].model_extra == {
        "state": "loadable",
        "context_length": 512,
        "max_model_len": 512,
    }
    client.completions.create(model="test/model", prompt="greet")
    after = {model.id: (model.model_extra or {})["state"] for model in client.models.list()}
    assert after == {"test/model": "hot", "other": "loadable"}


@pytest.mark.parametrize("path", ["test/model", "test%2Fmodel"])
def test_a_model_with_a_slash_is_found_encoded_or_not(server: LiveServer, path: str) -> None:
    answer = httpx.get(f"{server.url}/v1/models/{path}")
    Model.model_validate_json(answer.content, strict=True)
    assert answer.json()["id"] == "test/model"


def test_a_doubled_slash_is_forgiven(server: LiveServer) -> None:
    assert httpx.get(f"{server.url}/v1//models").status_code == 200


@pytest.mark.parametrize(
    "model",
    ["nope", "../x", "/etc/passwd", "a/b/c", "%2e%2e/x", "x" * 10_000, "a\\b", "\u2024\u2024/x"],
)
def test_what_is_no_model_is_not_found(server: LiveServer, model: str) -> None:
    answer = httpx.get(f"{server.url}/v1/models/{model}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("model_not_found", None)
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    posted = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    assert posted.status_code in (400, 404)
    assert posted.json()["error"]["param"] == "model"


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_docs_need_nothing_from_elsewhere(server: LiveServer, page: str) -> None:
    text = httpx.get(f"{server.url}{page}").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(loaded) >= 2
    for path in loaded:
        asset = httpx.get(urljoin(f"{server.url}{page}", path))
        assert asset.url.host == httpx.URL(server.url).host
        assert asset.status_code == 200
        assert len(asset.content) > 1000


def test_health_and_docs_answer(server: LiveServer) -> None:
    for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
        assert httpx.get(f"{server.url}{path}").status_code == 200
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert {"/v1/models", "/v1/chat/completions", "/v1/completions"} <= set(paths)
