"""Downloads as jobs."""

import asyncio
import logging

import pytest

from application.ports import PullOrder
from application.pull_models import JobState, PullJob, PullModels
from domain.errors import HubFailed, HubFault, JobNotFound, ShuttingDown
from domain.models import ModelId, PullPhase, PullProgress
from tests.fakes import FakeJournal, FakeSource
from tests.unit.clients import settle

MODEL, OTHER = ModelId("owner/model"), ModelId("owner/other")


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


@pytest.fixture
def pulls(source: FakeSource, journal: FakeJournal) -> PullModels:
    return PullModels(source, journal)


async def watched(pulls: PullModels, job: str) -> list[PullJob]:
    return [now async for now in pulls.watch(job)]


async def test_a_job_runs_to_its_end(pulls: PullModels, source: FakeSource) -> None:
    job = pulls.start(MODEL, "v1")
    assert (job.state, job.progress.phase) == (JobState.RUNNING, PullPhase.RESOLVING)
    await settle()
    done = pulls.find(job.id)
    assert (done.state, done.progress.phase) == (JobState.DONE, PullPhase.DONE)
    assert source.pulls == [(MODEL, "v1")]
    assert pulls.all() == (done,)


async def test_a_watcher_sees_every_step_and_the_end(pulls: PullModels) -> None:
    job = pulls.start(MODEL)
    seen = await watched(pulls, job.id)
    assert [now.progress.phase for now in seen] == [
        PullPhase.RESOLVING,
        PullPhase.RESOLVING,
        PullPhase.DOWNLOADING,
        PullPhase.VERIFYING,
        PullPhase.DONE,
        PullPhase.DONE,
    ]
    assert [now.state for now in seen[:-1]] == [JobState.RUNNING] * 5
    assert seen[-1].state is JobState.DONE


async def test_who_comes_late_sees_how_it_ended(pulls: PullModels) -> None:
    job = pulls.start(MODEL)
    await settle()
    assert [now.state for now in await watched(pulls, job.id)] == [JobState.DONE]


async def test_one_job_downloads_a_thing_however_many_ask(
    pulls: PullModels, source: FakeSource
) -> None:
    first = pulls.start(MODEL)
    assert pulls.start(MODEL).id == first.id
    assert pulls.start(MODEL, "v1").id != first.id
    assert pulls.start(OTHER).id != first.id
    await settle()
    assert len(source.pulls) == 3
    assert pulls.start(MODEL).id != first.id  # it has ended; there may be a newer revision


async def test_a_cancelled_job_stops_and_can_be_resumed(
    pulls: PullModels, source: FakeSource
) -> None:
    source.may_go_on.clear()
    job = pulls.start(MODEL)
    await settle()
    cancelled = await pulls.cancel(job.id)
    assert cancelled.state is JobState.CANCELLED
    assert source.stopped == 1
    source.may_go_on.set()
    assert pulls.resume(job.id).state is JobState.RUNNING
    await settle()
    assert pulls.find(job.id).state is JobState.DONE
    assert source.pulls == [(MODEL, None)] * 2


async def test_a_job_can_be_cancelled_before_it_has_begun(pulls: PullModels) -> None:
    job = pulls.start(MODEL)
    assert (await pulls.cancel(job.id)).state is JobState.CANCELLED
    assert (await pulls.cancel(job.id)).state is JobState.CANCELLED


async def test_a_failed_job_says_why_and_can_be_resumed(
    pulls: PullModels, source: FakeSource
) -> None:
    source.fault = HubFailed(HubFault.STALLED, "No byte came for 30 s.")
    job = pulls.start(MODEL)
    seen = await watched(pulls, job.id)
    assert seen[-1].state is JobState.FAILED
    assert seen[-1].error is source.fault
    source.fault = None
    assert pulls.resume(job.id).error is None
    await settle()
    assert pulls.find(job.id).state is JobState.DONE


async def test_a_job_that_is_done_is_not_run_again(pulls: PullModels, source: FakeSource) -> None:
    job = pulls.start(MODEL)
    await settle()
    assert pulls.resume(job.id).state is JobState.DONE
    await settle()
    assert len(source.pulls) == 1


async def test_what_nobody_thought_of_fails_the_job(
    pulls: PullModels, source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    source.fault = RuntimeError("surprise")
    with caplog.at_level(logging.ERROR, "portico.pulls"):
        job = pulls.start(MODEL)
        await settle()
    failed = pulls.find(job.id)
    assert (failed.state, str(failed.error)) == (JobState.FAILED, "The download failed.")
    assert "surprise" in caplog.text


async def test_an_unknown_job_is_not_found(pulls: PullModels) -> None:
    with pytest.raises(JobNotFound):
        pulls.find("7")
    with pytest.raises(JobNotFound):
        pulls.resume("7")
    with pytest.raises(JobNotFound):
        await pulls.cancel("7")
    with pytest.raises(JobNotFound):
        await watched(pulls, "7")


async def test_closing_stops_all_and_takes_no_more(pulls: PullModels, source: FakeSource) -> None:
    source.may_go_on.clear()
    jobs = [pulls.start(model) for model in (MODEL, OTHER)]
    watching = asyncio.create_task(watched(pulls, jobs[0].id))
    await settle()
    await pulls.close()
    ended = [pulls.find(job.id) for job in jobs]
    assert [job.state for job in ended] == [JobState.FAILED] * 2
    assert all(isinstance(job.error, ShuttingDown) for job in ended)  # nobody has cancelled them
    assert (await watching)[-1] == ended[0]
    assert source.stopped == 2
    with pytest.raises(ShuttingDown):
        pulls.start(MODEL)
    with pytest.raises(ShuttingDown):
        pulls.resume(jobs[0].id)


async def test_only_so_many_ended_jobs_are_remembered(pulls: PullModels) -> None:
    first = pulls.start(MODEL)
    await settle()
    for _ in range(150):
        last = pulls.start(MODEL)
        await settle()
    assert len(pulls.all()) <= 101
    assert pulls.find(last.id).state is JobState.DONE
    with pytest.raises(JobNotFound):
        pulls.find(first.id)


async def test_what_is_under_way_is_in_the_journal_until_it_ends(
    pulls: PullModels, source: FakeSource, journal: FakeJournal
) -> None:
    source.may_go_on.clear()
    done, cancelled = pulls.start(MODEL, "v1"), pulls.start(OTHER)
    assert journal.orders == {
        done.id: PullOrder(done.id, MODEL, "v1"),
        cancelled.id: PullOrder(cancelled.id, OTHER, None),
    }
    await settle()
    await pulls.cancel(cancelled.id)
    assert list(journal.orders) == [done.id]
    pulls.resume(cancelled.id)
    assert set(journal.orders) == {done.id, cancelled.id}
    source.may_go_on.set()
    await settle()
    assert journal.orders == {}


@pytest.mark.parametrize("fault", HubFault)
async def test_a_restart_goes_on_with_what_failed_only_for_now(
    pulls: PullModels, source: FakeSource, journal: FakeJournal, fault: HubFault
) -> None:
    source.fault = HubFailed(fault, "no")
    job = pulls.start(MODEL)
    await settle()
    kept = fault in {HubFault.UNREACHABLE, HubFault.BUSY, HubFault.STALLED}
    assert list(journal.orders) == [job.id] * kept
    again = pulls.start(MODEL)  # which stands for the first
    await settle()
    assert list(journal.orders) == [again.id] * kept
    pulls.deleted(MODEL)
    assert journal.orders == {}


async def test_a_close_leaves_the_journal_to_the_next_server(
    source: FakeSource, journal: FakeJournal
) -> None:
    source.may_go_on.clear()
    pulls = PullModels(source, journal)
    jobs = [pulls.start(model) for model in (MODEL, OTHER)]
    await settle()
    await pulls.close()
    assert list(journal.orders) == [job.id for job in jobs]
    source.may_go_on.set()
    after = PullModels(source, journal)
    after.recover()
    found = [(job.id, job.model, job.state) for job in after.all()]
    assert found == [(job.id, job.model, JobState.RUNNING) for job in jobs]
    assert after.start(MODEL).id == jobs[0].id  # it is that one
    assert after.start(MODEL, "v1").id not in {job.id for job in jobs}
    await settle()
    assert {job.state for job in after.all()} == {JobState.DONE}
    assert journal.orders == {}


async def test_a_download_that_ends_every_server_is_given_up(source: FakeSource) -> None:
    source.may_go_on.clear()
    journal = FakeJournal(PullOrder("7", MODEL, None))
    starts = 0
    while journal.orders:
        pulls = PullModels(source, journal)
        pulls.recover()
        starts += len(pulls.all())
        await settle()
        await pulls.close()
        assert starts < 100
    assert starts == len(source.pulls) == 20


async def test_a_download_that_gets_on_is_gone_on_with_as_often_as_need_be(
    source: FakeSource,
) -> None:
    source.progress = tuple(
        PullProgress(PullPhase.DOWNLOADING, "c0ffee", done, 100) for done in (50, 51)
    )
    source.fault = HubFailed(HubFault.STALLED, "no")
    journal = FakeJournal(PullOrder("7", MODEL, None, restarts=19))
    for _ in range(30):
        pulls = PullModels(source, journal)
        pulls.recover()
        await settle()
        assert journal.orders == {"7": PullOrder("7", MODEL, None)}
        await pulls.close()


async def test_two_left_of_one_thing_are_one_job(source: FakeSource) -> None:
    journal = FakeJournal(PullOrder("1", MODEL, "v1"), PullOrder("2", MODEL, "v1"))
    pulls = PullModels(source, journal)
    pulls.recover()
    assert [job.id for job in pulls.all()] == list(journal.orders) == ["1"]
    await pulls.close()
