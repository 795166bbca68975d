"""The journal of downloads, on a disk that others write on, too."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapters.huggingface.pull_journal import FilePullJournal
from application.ports import PullOrder
from domain.models import ModelId

A = PullOrder("1", ModelId("org/a"), "v1")
B = PullOrder("2", ModelId("b"), None, restarts=3)

# Writes one entry, says so, and lives until it is killed.
OTHER_SERVER = """
import sys, time
from pathlib import Path
from adapters.huggingface.pull_journal import FilePullJournal
from application.ports import PullOrder
from domain.models import ModelId
journal = FilePullJournal(Path(sys.argv[1]))
journal.write(PullOrder("1", ModelId("org/other"), None))
print("written", flush=True)
time.sleep(100)
"""


def folder(cache: Path) -> Path:
    return cache / ".locks" / "portico-pulls"


def left(cache: Path, *orders: PullOrder) -> None:
    journal = FilePullJournal(cache)
    for order in orders:
        journal.write(order)
    journal.close()


def test_what_a_server_leaves_the_next_one_finds(tmp_path: Path) -> None:
    assert FilePullJournal(tmp_path).claim() == ()
    left(tmp_path, B, A)
    journal = FilePullJournal(tmp_path)
    assert journal.claim() == (A, B)
    journal.erase("1")
    journal.erase("1")
    journal.write(PullOrder("2", B.model, None))
    journal.close()
    assert FilePullJournal(tmp_path).claim() == (PullOrder("2", B.model, None),)


def test_nothing_is_claimed_where_nothing_is_to_be_pulled(tmp_path: Path) -> None:
    left(tmp_path, A)
    assert FilePullJournal(tmp_path, claims=False).claim() == ()
    assert FilePullJournal(tmp_path).claim() == (A,)


def test_two_servers_do_not_take_each_others(tmp_path: Path) -> None:
    one, other = FilePullJournal(tmp_path), FilePullJournal(tmp_path)
    one.write(A)
    other.write(PullOrder("1", ModelId("org/other"), None))
    assert one.claim() == other.claim() == ()
    one.erase("1")
    other.close()
    assert [order.model for order in one.claim()] == [ModelId("org/other")]


def test_two_that_counted_alike_are_told_apart(tmp_path: Path) -> None:
    left(tmp_path, A)
    left(tmp_path, PullOrder("1", ModelId("org/other"), None))
    journal = FilePullJournal(tmp_path)
    claimed = journal.claim()
    assert [order.id for order in claimed] == ["1", "2"]
    assert {str(order.model) for order in claimed} == {"org/a", "org/other"}
    journal.close()
    assert set(FilePullJournal(tmp_path).claim()) == set(claimed)


def test_only_what_a_dead_server_left_is_claimed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OTHER_SERVER, str(tmp_path)]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "written\n"
        journal = FilePullJournal(tmp_path)
        assert journal.claim() == ()
        other.kill()
    (order,) = journal.claim()
    assert order.model == ModelId("org/other")


ENTRY = {"id": "1", "model": "org/a", "revision": None, "restarts": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 9000,
        b"null",
        json.dumps(ENTRY).encode()[:-9],
        json.dumps(ENTRY).encode() * 2,
        json.dumps(ENTRY | {"id": "../1"}).encode(),
        json.dumps(ENTRY | {"id": "1\n"}).encode(),
        json.dumps(ENTRY | {"id": 1}).encode(),
        json.dumps(ENTRY | {"model": "../../etc"}).encode(),
        json.dumps(ENTRY | {"restarts": -1}).encode(),
        json.dumps(ENTRY | {"revision": "x" * 300}).encode(),
        json.dumps(ENTRY | {"more": 1}).encode(),
    ],
)
def test_what_is_damaged_is_logged_and_discarded(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    left(tmp_path, B)
    damaged = folder(tmp_path) / "damaged.json"
    damaged.write_bytes(content)
    with caplog.at_level(logging.WARNING, "portico.pulls"):
        assert FilePullJournal(tmp_path).claim() == (B,)
    assert "damaged.json is discarded" in caplog.text
    assert not damaged.exists()


def test_what_can_not_be_deleted_keeps_no_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    left(tmp_path, A)
    left(tmp_path, PullOrder("1", ModelId("org/other"), None))
    (folder(tmp_path) / "damaged.json").write_text("{")
    monkeypatch.setattr(Path, "unlink", refuse)  # as in a folder that is not ours
    journal = FilePullJournal(tmp_path)
    assert [order.id for order in journal.claim()] == ["1", "2"]
    journal.erase("1")


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    left(tmp_path, A)
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(ENTRY | {"id": "9"}))
    (folder(tmp_path) / "link.json").symlink_to(secret)
    assert FilePullJournal(tmp_path).claim() == (A,)
    assert secret.exists()


def test_drafts_of_long_ago_are_swept(tmp_path: Path) -> None:
    left(tmp_path, A)
    old, new = folder(tmp_path) / "old.tmp", folder(tmp_path) / "new.tmp"
    for draft in (old, new):
        draft.write_text("{")
    os.utime(old, (time.time() - 9000,) * 2)
    assert FilePullJournal(tmp_path).claim() == (A,)
    assert (old.exists(), new.exists()) == (False, True)


def test_where_nothing_can_be_written_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".locks").write_text("in the way")
    journal = FilePullJournal(tmp_path)
    with caplog.at_level(logging.WARNING, "portico.pulls"):
        journal.write(A)
    assert "A restart would not go on with download 1" in caplog.text
    journal.erase("1")
    assert journal.claim() == ()
    journal.close()
