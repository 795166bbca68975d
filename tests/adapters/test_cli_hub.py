"""`portico search` and `portico pull`, with a hub that does as it is told."""

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dependency_injector import providers
from rich.console import Console

from adapters.cli.progress import bar
from adapters.container import Container
from domain.errors import HubFailed, HubFault
from domain.models import FoundModel, ModelCard, ModelId, PullPhase, PullProgress
from tests.command_line import portico
from tests.fakes import FakeCatalog, make_card
from tests.servers import model_folder

COMMIT = "0123456789abcdef"
START = PullProgress(PullPhase.DOWNLOADING, COMMIT, 0, 2_000_000_000, 0, 5)
STEPS = (
    PullProgress(PullPhase.RESOLVING),
    START,
    replace(START, bytes_done=500_000_000, files_done=3, bytes_per_second=25e6),
    replace(START, bytes_done=510_000_000, files_done=3, bytes_per_second=25e6),
    PullProgress(PullPhase.VERIFYING, COMMIT, 2_000_000_000, 2_000_000_000, 5, 5),
    PullProgress(PullPhase.DONE, COMMIT, 2_000_000_000, 2_000_000_000, 5, 5),
)


class FakeSource:
    """found: what any search finds. error: what everything raises, for as long as it stands there.
    interrupted: somebody presses Ctrl-C amid the download.
    """

    def __init__(self) -> None:
        self.found: tuple[FoundModel, ...] = ()
        self.error: HubFailed | None = None
        self.interrupted = False
        self.asked: list[object] = []
        self.closed = False

    async def search(self, text: str, limit: int) -> tuple[FoundModel, ...]:
        self.asked.append((text, limit))
        if self.error:
            raise self.error
        return self.found[:limit]

    async def pull(
        self, model: ModelId, revision: str | None
    ) -> AsyncGenerator[PullProgress, None]:
        self.asked.append((str(model), revision))
        try:
            yield STEPS[0]
            if self.error:
                raise self.error
            for step in STEPS[1:]:
                yield step
                if self.interrupted:
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.sleep(30)
        finally:
            self.closed = True


def card(name: str) -> ModelCard:
    return replace(make_card(name, 2_000_000_000), revision=COMMIT)


@pytest.fixture
def hub() -> Iterator[FakeSource]:
    source = FakeSource()
    catalog = FakeCatalog(card("org/here"))
    with (
        Container.source.override(providers.Object(source)),
        Container.catalog.override(providers.Object(catalog)),
    ):
        yield source


def test_a_search_is_a_table(hub: FakeSource) -> None:
    hub.found = (
        FoundModel(ModelId("org/here"), 12_345, 7, "2026-01-31T08:00:00Z", 2_000_000_000, "4-bit"),
        FoundModel(ModelId("org/else"), 3, 0, "2025-12-01T08:00:00Z", gated=True),
    )
    answer = portico("search", "qwen", "--limit", "7")
    assert answer.exit_code == 0
    assert hub.asked == [("qwen", 7)]
    head, here, elsewhere = (line.split() for line in answer.stdout.splitlines())
    assert head == ["Model", "Downloads", "Size", "Quantisation", "Updated", "Here"]
    assert here == ["org/here", "12,345", "2.00", "GB", "4-bit", "2026-01-31", "yes"]
    assert elsewhere == ["org/else", "(gated)", "3", "?", "-", "2025-12-01", "-"]


def test_a_search_for_scripts_is_one_document(hub: FakeSource) -> None:
    hub.found = (FoundModel(ModelId("org/here"), 5, 7, "2026-01-31T08:00:00Z", 2_000, "4-bit"),)
    assert json.loads(portico("search", "x", "--json").stdout) == {
        "data": [
            {
                "id": "org/here",
                "downloads": 5,
                "likes": 7,
                "updated": "2026-01-31T08:00:00Z",
                "size_bytes": 2000,
                "quantization": "4-bit",
                "gated": False,
                "cached": True,
            }
        ]
    }


def test_what_is_in_a_configured_folder_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder(tmp_path, "org/here")
    monkeypatch.setenv("PORTICO_AVAILABLE_MODELS", str(tmp_path))
    source = FakeSource()
    source.found = (FoundModel(ModelId("org/here"), 5, 7, ""),)
    with Container.source.override(providers.Object(source)):
        (hit,) = json.loads(portico("search", "x", "--json").stdout)["data"]
    assert hit["cached"]


def test_a_search_may_find_nothing(hub: FakeSource) -> None:
    answer = portico("search", "[x]")
    assert answer.exit_code == 0
    assert answer.stdout == "No MLX model on the hub matches `[x]`.\n"
    assert json.loads(portico("search", "x", "--json").stdout) == {"data": []}


def test_a_pull_says_how_far_it_is_and_what_comes_next(hub: FakeSource) -> None:
    answer = portico("pull", "org/here", "--revision", "v1")
    assert answer.exit_code == 0
    assert hub.asked == [("org/here", "v1")]
    assert answer.stdout.splitlines() == [
        "resolving",
        "downloading · 0.0 MB of 2.00 GB · 0/5 files",
        "downloading · 500.0 MB of 2.00 GB · 25.0 MB/s · 1m 00s left · 3/5 files",
        "verifying · 2.00 GB of 2.00 GB · 5/5 files",
        "done · 2.00 GB of 2.00 GB · 5/5 files",
        "org/here (2.00 GB) is in /models/org/here",
        "Chat with it: portico chat org/here",
    ]
    assert answer.stderr == ""


def test_a_pull_for_scripts_is_json_lines(hub: FakeSource) -> None:
    answer = portico("pull", "org/here", "--json")
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line["phase"] for line in lines] == [step.phase for step in STEPS]
    assert lines[2] == {
        "model": "org/here",
        "phase": "downloading",
        "commit": COMMIT,
        "bytes_done": 500_000_000,
        "bytes_total": 2_000_000_000,
        "files_done": 3,
        "files_total": 5,
        "bytes_per_second": 25e6,
        "seconds_left": 60.0,
    }
    assert lines[-1]["location"] == "/models/org/here"


def test_a_pull_of_what_is_not_offered_says_so(
    hub: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_AVAILABLE_MODELS", "org/other")
    assert "not among your `available_models`" in portico("pull", "org/here").stdout


def test_a_terminal_gets_a_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    with bar(console) as report:
        for step in STEPS[:3]:
            report(step)
    line = screen.getvalue().split("\r")[-1]
    assert "━" in line
    for word in ("downloading", "500.0 MB of 2.00 GB", "25.0 MB/s", "1m 00s left", "3/5 files"):
        assert word in line


@pytest.mark.parametrize("json_flag", [(), ("--json",)])
def test_ctrl_c_stops_a_pull_cleanly(hub: FakeSource, json_flag: tuple[str, ...]) -> None:
    hub.interrupted = True
    answer = portico("pull", "org/here", *json_flag)
    assert answer.exit_code == 130
    assert hub.closed
    assert answer.stderr == "portico: stopped. The same command goes on from here.\n"


@pytest.mark.parametrize(
    "command", [("search", "x"), ("pull", "org/here"), ("pull", "a/b", "--json")]
)
def test_what_the_hub_refuses_is_a_line(hub: FakeSource, command: tuple[str, ...]) -> None:
    hub.error = HubFailed(HubFault.UNREACHABLE, "The hub can't be reached.\nTry again.")
    answer = portico(*command)
    assert answer.exit_code == 1
    assert answer.stderr == "portico: The hub can't be reached. Try again.\n"
    assert not [line for line in answer.stdout.splitlines() if "resolving" not in line]


def test_what_is_no_model_id_is_wrong_usage(hub: FakeSource) -> None:
    answer = portico("pull", "../x")
    assert answer.exit_code == 2
    assert answer.stderr == "portico: `../x` is not a model id (`owner/name` or a name).\n"
    assert not hub.asked
    assert portico("search", "x", "--limit", "0").exit_code == 2


def test_offline_nothing_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_OFFLINE", "1")
    answer = portico("search", "x")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("portico: ")
    assert answer.stdout == ""
