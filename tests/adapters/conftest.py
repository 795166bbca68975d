"""A hub for those who pull from one."""

from collections.abc import Iterator

import pytest

from tests.stub_hub import StubHub, stub_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with stub_hub() as hub:
        yield hub
