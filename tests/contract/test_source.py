"""What every ModelSource promises: one suite for the hub and for the fake of it."""

from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from adapters.huggingface.source import HubOptions, HuggingFaceSource
from application.ports import ModelSource
from domain.errors import HubFailed, HubFault
from domain.models import FoundModel, ModelId, PullPhase
from tests.adapters.hub_tools import files
from tests.fakes import FakeSource
from tests.stub_hub import stub_hub

POPULAR, OTHER = ModelId.parse("org/one-4bit"), ModelId.parse("org/two")


@pytest.fixture(params=["hub", "fake"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModelSource]:
    if request.param == "fake":
        yield FakeSource(FoundModel(OTHER, 1, 0, ""), FoundModel(POPULAR, 9, 0, ""))
        return
    with stub_hub() as hub:
        hub.add(str(OTHER), files(seed=2), downloads=1)
        hub.add(str(POPULAR), files(), downloads=9)
        yield HuggingFaceSource(HubOptions(tmp_path, hub.url, stall_timeout=5, backoff=0.01))


async def test_search_lists_the_most_downloaded_first(source: ModelSource) -> None:
    assert [found.id for found in await source.search("ORG", 5)] == [POPULAR, OTHER]
    assert [found.id for found in await source.search("org", 1)] == [POPULAR]
    assert [found.id for found in await source.search("two", 5)] == [OTHER]
    assert await source.search("three", 5) == ()


async def test_a_pull_goes_through_its_phases_to_done(source: ModelSource) -> None:
    async with aclosing(source.pull(POPULAR, None)) as progresses:
        seen = [progress async for progress in progresses]
    order = list(PullPhase)
    phases = [order.index(progress.phase) for progress in seen]
    assert phases == sorted(phases)
    assert {progress.phase for progress in seen} == set(PullPhase)
    last = seen[-1]
    assert last.phase is PullPhase.DONE
    assert (last.bytes_done, last.files_done) == (last.bytes_total, last.files_total)
    assert {progress.revision for progress in seen[1:]} == {last.revision} != {""}
    assert all(0 <= progress.bytes_done <= progress.bytes_total for progress in seen)


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_pull_that_was_closed_can_be_repeated(source: ModelSource, steps: int) -> None:
    async with aclosing(source.pull(POPULAR, None)) as progresses:
        for _ in range(steps):
            await anext(progresses)
    async with aclosing(source.pull(POPULAR, None)) as progresses:
        seen = [progress async for progress in progresses]
    assert seen[-1].phase is PullPhase.DONE


async def test_a_model_that_is_not_there_is_missing(source: ModelSource) -> None:
    with pytest.raises(HubFailed) as failure:
        async with aclosing(source.pull(ModelId.parse("org/none"), None)) as progresses:
            async for progress in progresses:
                assert progress.phase is PullPhase.RESOLVING
    assert failure.value.fault is HubFault.MISSING
