"""A clock that stands still, and a loader that goes by it."""

import pytest

from tests.fakes import FakeClock, FakeLoader


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def loader(clock: FakeClock) -> FakeLoader:
    return FakeLoader(clock)
