"""`portico models`: list, show, estimate and rm."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from dependency_injector import providers

from adapters.container import Container
from domain.errors import EngineFailed
from domain.memory import MemoryProfile
from domain.models import ModelCard
from tests.command_line import portico
from tests.fakes import FakeCatalog, FakeClock, FakeLoader, make_card
from tests.servers import model_folder


class Unprofiled(FakeLoader):
    """Can't tell what a model needs."""

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        raise EngineFailed("That is no model.")


@pytest.fixture
def catalog() -> Iterator[FakeCatalog]:
    catalog = FakeCatalog(make_card("org/one", 1_500_000_000), make_card("two", 3_000_000))
    with (
        Container.catalog.override(providers.Object(catalog)),
        Container.loader.override(providers.Object(FakeLoader(FakeClock()))),
    ):
        yield catalog


def test_the_list_is_the_same_with_and_without_its_name(tmp_path: Path) -> None:
    model_folder(tmp_path / "m", "org/one", size=2_500_000)
    flags = ("--model", str(tmp_path / "m"))
    answer = portico("models", *flags)
    assert answer.exit_code == 0
    assert answer.stdout == portico("models", "list", *flags).stdout
    assert answer.stdout.splitlines()[1].split()[:3] == ["org/one", "2.5", "MB"]


def test_the_list_for_scripts_is_one_document(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", "org/one", size=2_500_000)
    answer = portico("models", "--json", "--model", str(tmp_path / "m"))
    (model,) = json.loads(answer.stdout)["data"]
    assert model["id"] == "org/one"
    assert model["size_bytes"] == 2_500_000
    assert model["context_length"] == model["max_context_length"] == 512
    assert model["capabilities"] == {"chat_template": False, "tools": False, "thinking": False}
    assert model["location"] == str(folder)
    assert json.loads(portico("models", "-m", str(tmp_path / "no"), "--json").stdout) == {
        "data": []
    }


def test_show_tells_all(catalog: FakeCatalog) -> None:
    answer = portico("models", "show", "two")
    assert answer.exit_code == 0
    for words in ("two", "3.0 MB", "512 tokens", "/models/two", "On disk", "It fits now."):
        assert words in answer.stdout
    told = json.loads(portico("models", "show", "two", "--json").stdout)
    assert told["disk"]["bytes_on_disk"] == 3_000_000
    assert told["estimate"]["fit"] == "now"


def test_what_can_not_be_loaded_can_be_shown(catalog: FakeCatalog) -> None:
    with Container.loader.override(providers.Object(Unprofiled(FakeClock()))):
        answer = portico("models", "show", "two")
        told = json.loads(portico("models", "show", "two", "--json").stdout)
    assert answer.exit_code == 0
    assert "That is no model." in answer.stdout
    assert told["estimate"] == {"error": "That is no model."}


def test_an_estimate_is_numbers_and_a_verdict(catalog: FakeCatalog) -> None:
    answer = portico("models", "estimate", "two", "--context", "256", "--concurrency", "2")
    assert answer.exit_code == 0
    assert "2 x 256 tokens" in answer.stdout
    assert "It fits now." in answer.stdout
    (needed,) = re.findall(r"Needed +([0-9.]+ MB)", answer.stdout)
    assert f"needs {needed} of memory" in answer.stdout
    told = json.loads(portico("models", "estimate", "two", "--json").stdout)
    assert told["need"]["total"] == sum(
        told["need"][part] for part in ("weights", "kv_cache", "prefill")
    )
    assert told["budget"] == 10**9


def test_what_never_fits_fails_only_a_check(catalog: FakeCatalog) -> None:
    answer = portico("models", "estimate", "org/one")
    assert answer.exit_code == 0
    assert "It can't fit: raise `memory_budget_gb`" in answer.stdout
    checked = portico("models", "estimate", "org/one", "--check", "--json")
    assert checked.exit_code == 3
    assert json.loads(checked.stdout)["fit"] == "never"
    assert portico("models", "estimate", "two", "--check").exit_code == 0


def test_wrong_numbers_are_refused(catalog: FakeCatalog) -> None:
    assert portico("models", "estimate", "two", "--context", "0").exit_code == 2
    assert portico("models", "estimate", "two", "--kv-bits", "5").exit_code == 2
    longer = portico("models", "estimate", "two", "--context", "513")
    assert longer.exit_code == 1
    assert longer.stderr == "portico: The context of `two` is 512 tokens at most.\n"


def test_a_model_is_deleted(catalog: FakeCatalog) -> None:
    answer = portico("models", "rm", "two", "--yes")
    assert answer.exit_code == 0
    assert answer.stdout == "Deleted two; 3.0 MB are free.\n"
    assert portico("models", "show", "two").exit_code == 1
    told = json.loads(portico("models", "rm", "org/one", "-y", "--json").stdout)
    assert told == {"data": [{"model": "org/one", "freed_bytes": 1_500_000_000}]}


def test_one_unknown_model_keeps_the_others(catalog: FakeCatalog) -> None:
    answer = portico("models", "rm", "two", "nope", "--yes")
    assert answer.exit_code == 1
    assert "`nope` does not exist" in answer.stderr
    assert portico("models", "show", "two").exit_code == 0


def test_nothing_is_deleted_unasked(catalog: FakeCatalog) -> None:
    answer = portico("models", "rm", "two")
    assert answer.exit_code == 2
    assert answer.stderr == "portico: nobody can be asked; say --yes to delete.\n"
    assert portico("models", "show", "two").exit_code == 0
