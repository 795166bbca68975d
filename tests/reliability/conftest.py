"""Many connections at once need many files."""

import pytest

from adapters.http.server import allow_files


@pytest.fixture(autouse=True, scope="session")
def _files() -> None:
    allow_files(4096)
