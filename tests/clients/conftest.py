"""`portico serve` on the embedded demo model, and what every client is asked to do with it."""

from collections.abc import Iterator

import openai
import pytest

from tests.e2e.conftest import Program, portico_serve


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with portico_serve(tmp_path_factory.mktemp("clients")) as program:
        yield program
    assert not [line for line in program.output if "Traceback" in line]


@pytest.fixture
def base_url(demo_server: Program) -> str:
    return f"{demo_server.url}/v1"


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="x", max_retries=0) as client:
        yield client
