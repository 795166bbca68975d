from collections.abc import Iterator

import pytest

from tests.adapters.bench.server import BadServer, bad_server


@pytest.fixture
def server() -> Iterator[BadServer]:
    with bad_server() as server:
        yield server
