"""Row 2: no body is the server's fault, leaves a traceback, or stays in memory.

A share of what `make fuzz` sends; that one has schemathesis as well (tests/fuzz).
"""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reliability.fuzzing import GOOD, MOST_GROWTH, Target, bodies, kinds, many, target


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("fuzz")) as server:
        yield server


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", GOOD)
def test_no_body_is_the_servers_fault(server: Target, path: str) -> None:
    strategy = st.tuples(bodies(path), kinds())

    @many
    @given(strategy)
    def send(sent: tuple[bytes, dict[str, str]]) -> None:
        server.send("POST", path, *sent)

    server.send("POST", path, b"[" * 100_000, {"content-type": "application/json"})
    before = server.memory
    send()
    growth = server.memory - before
    print(f"{path}: {growth / 1e6:.1f} MB more")
    assert growth < MOST_GROWTH
