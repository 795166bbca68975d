"""Servers whose models, hub and clockwork a test decides, and readers of their event streams."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from adapters.settings import Settings
from domain.errors import HubFailed
from domain.models import Capabilities, FoundModel, ModelCard, ModelId, PullProgress
from tests.fakes import FakeCatalog, FakeSource
from tests.servers import LiveServer, live_server


class Hub(FakeSource):
    """A hub that a test in another thread can hold.

    progress: what every download goes through. hold_after: how much of it comes before `let_go`
    is called; None waits for nothing. fault: what ends a search, and a download after all its
    progress.
    """

    def __init__(
        self,
        *progress: PullProgress,
        found: tuple[FoundModel, ...] = (),
        hold_after: int | None = None,
        fault: HubFailed | None = None,
    ) -> None:
        super().__init__(*found)
        self.progress = progress
        self.fault = fault
        self._hold_after = hold_after
        self._loop: asyncio.AbstractEventLoop | None = None
        self.may_go_on.clear()

    def let_go(self) -> None:
        """Downloads that are held go on, and later ones are not held."""
        assert self._loop, "nothing was pulled"
        self._loop.call_soon_threadsafe(self.may_go_on.set)

    async def pull(
        self, model: ModelId, revision: str | None
    ) -> AsyncGenerator[PullProgress, None]:
        """Raises `fault`."""
        self.pulls.append((model, revision))
        self._loop = asyncio.get_running_loop()
        try:
            for count, progress in enumerate(self.progress):
                if count == self._hold_after:
                    await self.may_go_on.wait()
                yield progress
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped += 1
            raise
        if self.fault:
            raise self.fault


def card(name: str, weight_bytes: int = 1000) -> ModelCard:
    return ModelCard(
        ModelId.parse(name),
        "5c0ffee",
        Path(f"/models/{name}"),
        weight_bytes,
        512,
        1_700_000_000,
        "llama",
        "4-bit",
        Capabilities(chat_template=True, tools=True),
    )


def container(
    catalog: FakeCatalog,
    source: FakeSource | None = None,
    script: Script | None = None,
    **settings: Any,
) -> Container:
    """budget: in bytes, when it is given."""
    if "budget" in settings:
        settings["memory_budget_gb"] = settings.pop("budget") / 1e9
    container = Container(settings=Settings(backend="scripted", **settings))
    container.catalog.override(catalog)
    container.source.override(source or FakeSource())
    container.loader.override(ScriptedLoader(script or Script(reply="Hello there.")))
    return container


@contextmanager
def serving(container: Container) -> Iterator[tuple[LiveServer, httpx.Client]]:
    with (
        live_server(container) as server,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        yield server, client


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """The name and the data of each event; comments have no name, and their text for data."""
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        match field:
            case "event":
                name = value
            case "data":
                yield name, json.loads(value)
                name = ""
            case "" if line:
                yield "", value


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error object, which looks like all the others."""
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert set(error) <= {"message", "type", "param", "code", "details"}
    return error
