"""Every error in OpenAI's shape, with a status that clients don't retry in vain."""

import json
from typing import Any

import httpx
import openai
import pytest

from adapters.scripted.engine import Script, ScriptedLoader
from tests.servers import LiveServer, live_server

GOOD: dict[str, Any] = {"model": "test/model", "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "f"}}
NAMED_G = {"type": "function", "function": {"name": "g"}}
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]


def post(server: LiveServer, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, "messages", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"presence_penalty": 3}, "presence_penalty", "invalid_value"),
        ({"seed": 10**30}, "seed", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "invalid_value"),
        ({"logit_bias": {"five": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"-5": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "invalid_value"),
        ({"max_completion_tokens": 2**63}, "max_completion_tokens", "invalid_value"),
        ({"tool_choice": "auto"}, "tool_choice", None),
        ({"tools": [{"type": "custom"}]}, "tools[0].type", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": "must"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": NAMED_G}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"model": "a/b/c"}, "model", "invalid_value"),
        ({"model": 5}, "model", "invalid_type"),
    ],
)
def test_bad_values_are_refused_by_name(
    server: LiveServer, change: dict[str, Any], param: str, code: str | None
) -> None:
    answer = post(server, GOOD | change)
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "change",
    [
        {"functions": [{"name": "f"}]},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"min_tokens": 5},
        {"echo": True},
        {"suffix": "x"},
        {"best_of": 2},
        {"grammar": "root ::= x"},
        {"use_beam_search": True},
        {"skip_special_tokens": False},
        {"include_stop_str_in_output": True},
        {"n_predict": 1},
        {"add_special_tokens": True},
    ],
)
def test_what_would_change_the_answer_and_is_not_honoured_is_refused(
    server: LiveServer, change: dict[str, Any]
) -> None:
    answer = post(server, GOOD | change)
    assert answer.status_code == 400
    param = error_of(answer)["param"]
    assert param is not None
    assert param.split(".")[0] == list(change)[-1]


def test_the_same_names_are_let_pass_with_what_changes_nothing(server: LiveServer) -> None:
    same = {"min_tokens": 0, "n_predict": -1, "skip_special_tokens": True, "echo": False}
    assert post(server, GOOD | same | {"add_special_tokens": False}).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"best_of": 9}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"tools": [TOOL]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_bad_completion_values_are_refused_by_name(
    server: LiveServer, change: dict[str, Any], param: str
) -> None:
    answer = post(server, {"model": "test/model", "prompt": "x"} | change, "/v1/completions")
    found = error_of(answer)["param"]
    assert answer.status_code == 400
    assert found is not None
    assert found.split("[")[0] == param


@pytest.mark.parametrize(
    "content",
    [
        b"{bad",
        b"",
        b"[1]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"model": "test/model", "temperature": NaN, "messages": []}',
        b'{"model": "test/model", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_a_bad_request(server: LiveServer, content: bytes) -> None:
    url = f"{server.url}/v1/chat/completions"
    answer = httpx.post(url, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


def test_other_content_types_are_refused(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=json.dumps(GOOD))
    assert answer.status_code == 415
    error_of(answer)


@pytest.mark.parametrize(
    "path", ["/api/v1/status/", "/api/v1/pulls/..%2f", "/v1/chat/completions/", "/livez/"]
)
def test_a_slash_too_many_at_the_end_is_not_found(server: LiveServer, path: str) -> None:
    answer = httpx.get(server.url + path)
    assert answer.status_code == 404
    error_of(answer)


def test_unknown_models_paths_and_methods(server: LiveServer) -> None:
    unknown = post(server, GOOD | {"model": "nope"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    assert post(server, {}, "/v1/nope").status_code == 404
    error_of(post(server, {}, "/v1/nope"))
    wrong_method = httpx.get(f"{server.url}/v1/chat/completions")
    assert wrong_method.status_code == 405
    error_of(wrong_method)


@pytest.mark.parametrize("stream", [False, True])
def test_overflow_has_a_real_status_and_the_phrase_clients_look_for(
    server: LiveServer, stream: bool
) -> None:
    body = GOOD | {"messages": [{"role": "user", "content": "word " * 600}], "stream": stream}
    answer = post(server, body)
    error = error_of(answer)
    assert answer.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert "This model's maximum context length is 512 tokens" in error["message"]


def test_the_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=messages)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="test/model", messages=messages, temperature=9)
    assert bad.value.param == "temperature"


def test_a_failure_after_the_first_byte_is_an_error_event(server: LiveServer) -> None:
    server.container.loader.override(ScriptedLoader(Script(reply="a b c d", fail_after=2)))
    server.container.models.reset()
    with live_server(server.container) as broken:
        client = openai.OpenAI(base_url=f"{broken.url}/v1", api_key="x", max_retries=0)
        stream = client.chat.completions.create(
            model="test/model", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(openai.APIError, match="scripted engine failed"):
            list(stream)
        answer = post(broken, GOOD)
        assert answer.status_code == 500
        assert error_of(answer)["type"] == "server_error"
