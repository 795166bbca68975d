"""Engine processes that die, hang and are left alone."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from adapters.container import Container
from adapters.isolated.engine import IsolatedEngine
from adapters.isolated.loader import IsolatingLoader
from adapters.isolated.messages import MakeLoader
from adapters.scripted.engine import Script, ScriptedEngine, ScriptedLoader
from adapters.settings import Settings
from domain.chat import ChatCommand, Message, Sampling
from domain.errors import EngineFailed, ShuttingDown
from domain.models import ModelCard, ModelId
from domain.outputs import End
from tests.adapters.isolated import odd_loaders
from tests.generations import outputs
from tests.plans import plan_for
from tests.servers import scripted_settings
from tests.waiting import eventually

MODEL = ModelId.parse("test/model")
WORDS = " ".join(f"word{n}" for n in range(400))
PATIENCE = 20.0
HANG = 0.5
SLOW = Script(reply=WORDS, token_delay=0.01)


def chat(text: str = "go") -> ChatCommand:
    return ChatCommand(MODEL, (Message.user(text),), Sampling())


def isolating(make_loader: MakeLoader) -> IsolatingLoader:
    return IsolatingLoader(ScriptedLoader(SLOW), make_loader, lambda model: True, HANG)


def scripted(script: Script = SLOW) -> MakeLoader:
    return partial(ScriptedLoader, script)


@asynccontextmanager
async def loaded(card: ModelCard, make_loader: MakeLoader) -> AsyncIterator[IsolatedEngine]:
    engine = await isolating(make_loader).load(card, plan_for(card))
    assert isinstance(engine, IsolatedEngine)
    yield engine
    await engine.close()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_all_in_flight_hear_of_a_kill_at_once(card: ModelCard) -> None:
    async with loaded(card, scripted()) as engine:
        generations = [engine.generate(chat()) for _ in range(8)]
        for generation in generations:
            await anext(generation)
        os.kill(engine.pid, signal.SIGKILL)
        killed = time.monotonic()
        for generation in generations:
            with pytest.raises(EngineFailed, match="SIGKILL"):
                async for _ in generation:
                    pass
        assert time.monotonic() - killed < 1.0
        assert not engine.alive
        with pytest.raises(EngineFailed, match="SIGKILL"):
            await outputs(engine, chat())
    assert gone(engine.pid)


async def test_a_crash_is_told_by_the_name_of_its_signal(card: ModelCard) -> None:
    async with loaded(card, scripted()) as engine:
        os.kill(engine.pid, signal.SIGABRT)
        with pytest.raises(EngineFailed, match="SIGABRT"):
            await outputs(engine, chat())


async def test_a_broken_engine_in_a_living_process_is_broken(card: ModelCard) -> None:
    async with loaded(card, scripted(Script(reply=WORDS, fail_after=3))) as engine:
        with pytest.raises(EngineFailed, match="as it was told to"):
            await outputs(engine, chat())
        assert not engine.alive
    assert gone(engine.pid)


async def test_a_bug_of_the_engine_fails_its_request(card: ModelCard) -> None:
    async with loaded(card, partial(odd_loaders.BuggyLoader, SLOW)) as engine:
        with pytest.raises(EngineFailed, match="ZeroDivisionError"):
            await asyncio.wait_for(outputs(engine, chat()), PATIENCE)
        assert engine.alive


async def test_a_load_that_fails_says_why(card: ModelCard) -> None:
    with pytest.raises(EngineFailed, match="as it was told to"):
        await isolating(scripted(Script(fail_load=True))).load(card, plan_for(card))


async def test_a_process_that_dies_amid_its_load_is_a_failed_load(card: ModelCard) -> None:
    loader = isolating(partial(odd_loaders.DyingLoader, SLOW))
    with pytest.raises(EngineFailed, match=r"while it loaded .*SIGKILL"):
        await loader.load(card, plan_for(card))


async def test_a_process_that_can_t_be_started_is_a_failed_load(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineFailed, match=r"can be started: No such file or directory$"):
        await isolating(scripted()).load(card, plan_for(card))


async def test_a_load_that_nobody_waits_for_leaves_no_process(
    card: ModelCard, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    loader = isolating(partial(odd_loaders.WritingLoader, file, 60.0))
    loading = asyncio.create_task(loader.load(card, plan_for(card)))
    await eventually(lambda: file.exists() and file.read_text() != "")
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await eventually(lambda: gone(int(file.read_text())))


async def test_a_frozen_process_falls_silent_and_is_killed_when_closed(card: ModelCard) -> None:
    async with loaded(card, scripted()) as engine:
        os.kill(engine.pid, signal.SIGSTOP)
        await eventually(lambda: time.monotonic() - engine.heartbeat > HANG)
        generation = engine.generate(chat())
        waiting = asyncio.ensure_future(anext(generation))
        await asyncio.sleep(0)
        closing = asyncio.create_task(engine.close(EngineFailed("It hung.")))
        with pytest.raises(EngineFailed, match="It hung"):
            await waiting
        await asyncio.wait_for(closing, PATIENCE)
    assert gone(engine.pid)


async def test_a_server_that_stood_still_has_not_heard_all(card: ModelCard) -> None:
    async with loaded(card, scripted()) as engine:
        await asyncio.sleep(0.1)
        time.sleep(2.0)  # noqa: ASYNC251 - as when it is stopped by Ctrl-Z
        assert time.monotonic() - engine.heartbeat < HANG
        for _ in range(20):
            await asyncio.sleep(0)
            assert time.monotonic() - engine.heartbeat < HANG
        os.kill(engine.pid, signal.SIGSTOP)
        await eventually(lambda: time.monotonic() - engine.heartbeat > HANG)


async def test_an_engine_that_hangs_is_known_by_its_heartbeat(card: ModelCard) -> None:
    async with loaded(card, scripted(Script(reply=WORDS, hang_after=3))) as engine:
        generation = engine.generate(chat())
        await anext(generation)
        reading = asyncio.create_task(outputs(engine, chat()))
        await eventually(lambda: time.monotonic() - engine.heartbeat > HANG)
        await asyncio.wait_for(engine.close(EngineFailed("It hung.")), PATIENCE)
        with pytest.raises(EngineFailed, match="It hung"):
            await reading
        await generation.aclose()


async def test_an_idle_engine_shows_that_it_lives(card: ModelCard) -> None:
    async with loaded(card, scripted()) as engine:
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert time.monotonic() - engine.heartbeat < 5.0


async def test_signals_of_a_terminal_or_a_service_manager_do_not_reach_it(card: ModelCard) -> None:
    async with loaded(card, scripted(Script(reply="a b c", token_delay=0.05))) as engine:
        assert os.getsid(engine.pid) != os.getsid(0)
        generation = engine.generate(chat())
        await anext(generation)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(engine.pid, number)
        said = [output async for output in generation]
        assert isinstance(said[-1], End)


async def test_lines_of_the_log_arrive_and_stray_words_do_not(
    card: ModelCard, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "portico"):
        async with loaded(card, partial(odd_loaders.ChattyLoader, SLOW)) as engine:
            lines = [(r.name, r.levelname, r.getMessage()) for r in caplog.records]
    assert ("portico.test", "WARNING", f"loading test/model in {engine.pid}") in lines
    assert not [line for line in lines if "nobody wants" in line[2]]
    out, err = capfd.readouterr()
    assert "a stray word" not in out
    assert "a stray word" in err


PARENT = """
import asyncio, os, signal, sys
from functools import partial
from pathlib import Path
from adapters.isolated.loader import IsolatingLoader
from adapters.scripted.engine import Script, ScriptedLoader
from domain.models import ModelCard, ModelId
from tests.adapters.isolated.odd_loaders import WritingLoader
from tests.plans import plan_for

async def main():
    card = ModelCard(ModelId.parse("m"), "", Path("."), 1000, 512, 0)
    make = partial(WritingLoader, Path(sys.argv[1]), 0.0)
    loader = IsolatingLoader(ScriptedLoader(Script()), make, lambda model: True)
    engine = await loader.load(card, plan_for(card))
    from tests.adapters.isolated.test_processes import chat
    await anext(engine.generate(chat()))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_when_the_server_dies_its_engines_end_by_themselves(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    server = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", PARENT, str(file)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=60,
        check=False,
    )
    assert server.returncode == -signal.SIGKILL
    await eventually(lambda: gone(int(file.read_text())))


async def test_an_engine_that_is_closed_twice_ends_once(card: ModelCard) -> None:
    async with loaded(card, scripted()) as engine:
        generation = engine.generate(chat())
        await anext(generation)
        await asyncio.gather(engine.close(), engine.close(EngineFailed("too late")))
        with pytest.raises(ShuttingDown):
            async for _ in generation:
                pass
    assert gone(engine.pid)


async def test_processes_come_and_go_without_a_trace(card: ModelCard) -> None:
    async def one(*, killed: bool) -> None:
        async with loaded(card, scripted(Script(reply="a b"))) as engine:
            assert await outputs(engine, chat())
            if killed:
                os.kill(engine.pid, signal.SIGKILL)

    def tasks_and_files() -> tuple[int, int]:
        return len(asyncio.all_tasks()), len(os.listdir("/dev/fd"))

    await one(killed=False)
    before = tasks_and_files()
    for round_ in range(4):
        await one(killed=round_ % 2 == 0)
    await asyncio.sleep(0)
    assert tasks_and_files() == before


async def test_models_choose_for_themselves(tmp_path: Path) -> None:
    names = {"one": {"isolation": "process"}, "two": {}, "three": {"isolation": "thread"}}
    for general, processes in (("thread", {"one"}), ("process", {"one", "two"})):
        settings = scripted_settings(tmp_path / general, *names, models=names, isolation=general)
        pool = Container(settings=settings).models()
        isolated = set()
        for name in names:
            async with pool.lease(ModelId.parse(name)) as engine:
                assert isinstance(engine, IsolatedEngine | ScriptedEngine)
                if isinstance(engine, IsolatedEngine):
                    isolated.add(name)
        assert isolated == processes
        await pool.close()


def test_without_isolation_nothing_of_it_is_imported() -> None:
    code = (
        "import sys; from adapters.container import Container; "
        "from adapters.settings import Settings; "
        "Container(settings=Settings()).loader(); "
        "assert not [name for name in sys.modules if name.startswith('adapters.isolated')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603
    assert Settings().isolation == "thread"
