"""What many tests need: a card, settings that look at nothing on this machine, live servers."""

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from domain.models import ModelCard, ModelId

# Chance finds new cases at a desk; in CI the same commit gives the same result.
settings.register_profile("portico", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("portico")

# A shell that runs us in the background has SIGINT ignored, and programs inherit that; here they
# are interrupted on purpose.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """As the server does at its start. A model that leaves looks through everything that lives,
    and among thousands of tests that takes longer than to load one.
    """
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_outside_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, no cache and no settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("PORTICO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))  # for programs that tests start
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return ModelCard(ModelId.parse("test/model"), "", tmp_path, 1000, 512, 0)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 with random weights that never ends by itself."""
    from tests.tiny import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny", eos=False)
