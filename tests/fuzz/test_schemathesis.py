"""What schemathesis makes of our OpenAPI description, valid and not: `make fuzz`."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given
from schemathesis.generation import GenerationMode

from tests.reliability.fuzzing import MOST_GROWTH, Target, document, fewer, operations, target

JSON_HEADERS = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("fuzz")) as server:
        yield server


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), operations())
def test_no_request_is_the_servers_fault(
    server: Target, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(document())[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        return  # there is nothing to get wrong

    @fewer
    @given(operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        content = (
            b"" if isinstance(case.body, type(schemathesis.core.NOT_SET)) else _json(case.body)
        )
        query = httpx.QueryParams({name: str(value) for name, value in (case.query or {}).items()})
        server.send(method.upper(), f"{case.formatted_path}?{query}", content, JSON_HEADERS)

    before = server.memory
    send()
    assert server.memory - before < MOST_GROWTH


def _json(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()
