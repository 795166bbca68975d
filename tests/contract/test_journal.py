"""What every PullJournal promises: one suite for the one of files and for the fake of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.huggingface.pull_journal import FilePullJournal
from application.ports import PullJournal, PullOrder
from domain.models import ModelId
from tests.fakes import FakeJournal

SECOND = PullOrder("2", ModelId("org/a"), "v1")
TENTH = PullOrder("10", ModelId("b"), None, restarts=3)

Start = Callable[[], PullJournal]


@pytest.fixture(params=["files", "fake"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """The journal of a server that starts once the one before it has closed its own."""
    if request.param == "files":
        return lambda: FilePullJournal(tmp_path)
    fake = FakeJournal()
    return lambda: fake


def test_a_first_server_finds_nothing(start: Start) -> None:
    assert start().claim() == ()


def test_the_next_server_takes_over_what_is_left_in_the_order_of_its_ids(start: Start) -> None:
    journal = start()
    journal.write(TENTH)
    journal.write(SECOND)
    for _ in range(2):
        journal.close()
        journal = start()
        assert journal.claim() == (SECOND, TENTH)


def test_a_server_takes_over_nothing_twice_and_nothing_of_its_own(start: Start) -> None:
    journal = start()
    journal.write(SECOND)
    assert journal.claim() == ()
    journal.close()
    after = start()
    assert after.claim() == (SECOND,)
    assert after.claim() == ()


def test_what_is_written_takes_the_place_of_what_was(start: Start) -> None:
    journal = start()
    journal.write(SECOND)
    journal.write(PullOrder("2", SECOND.model, "v2"))
    journal.close()
    assert start().claim() == (PullOrder("2", SECOND.model, "v2"),)


def test_what_has_ended_is_left_to_nobody(start: Start) -> None:
    journal = start()
    journal.write(SECOND)
    journal.write(TENTH)
    for job in ("2", "2", "3"):
        journal.erase(job)
    journal.close()
    after = start()
    assert after.claim() == (TENTH,)
    after.erase("10")
    after.close()
    assert start().claim() == ()
