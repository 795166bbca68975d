"""Files of models are looked at in processes, too."""

import asyncio
import os
from functools import partial
from pathlib import Path

import psutil
import pytest

from adapters.isolated.loader import IsolatingLoader
from adapters.scripted.engine import Script, ScriptedLoader
from domain.errors import EngineFailed, ModelUnusable
from domain.models import ModelId
from tests.adapters.isolated.odd_loaders import FragileLoader
from tests.fakes import make_card

PATIENCE = 30.0


def isolating(looks: Path, load_timeout: float = PATIENCE) -> IsolatingLoader:
    def chosen(model: ModelId) -> bool:
        return str(model) != "here"

    make_loader = partial(FragileLoader, looks)
    return IsolatingLoader(ScriptedLoader(Script()), make_loader, chosen, 30.0, load_timeout)


def looks_of(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid)]


async def test_files_that_abort_a_process_do_not_abort_the_server(tmp_path: Path) -> None:
    looks = tmp_path / "looks"
    loader = isolating(looks)
    for _ in range(2):  # it is tried again: the files may have been mended
        with pytest.raises(EngineFailed, match=r"looked at the model's files .*SIGABRT"):
            await loader.profile(make_card("bad", 1), None)
    assert len(looks_of(looks)) == 2
    good = make_card("good", 7)
    assert (await loader.profile(good, None)).weights == 7
    assert os.getpid() not in looks_of(looks)
    assert living(looks_of(looks)) == []


async def test_a_profile_is_looked_up_once_however_many_ask(tmp_path: Path) -> None:
    looks = tmp_path / "looks"
    loader, good = isolating(looks), make_card("good", 7)
    leaving, *staying = [asyncio.create_task(loader.profile(good, None)) for _ in range(5)]
    await asyncio.sleep(0)
    leaving.cancel()
    assert {profile.weights for profile in await asyncio.gather(*staying)} == {7}
    await loader.profile(good, None)
    assert len(looks_of(looks)) == 1
    await loader.profile(good, 8)
    assert len(looks_of(looks)) == 2


async def test_refusals_come_as_they_are_and_other_models_need_no_process(tmp_path: Path) -> None:
    looks = tmp_path / "looks"
    loader = isolating(looks)
    with pytest.raises(ModelUnusable, match="damaged"):
        await loader.profile(make_card("none", 1), None)
    assert (await loader.profile(make_card("here", 3), None)).weights == 3
    assert len(looks_of(looks)) == 1


async def test_files_that_are_never_read_end_with_their_process(tmp_path: Path) -> None:
    looks = tmp_path / "looks"
    loader = isolating(looks, load_timeout=3.0)
    with pytest.raises(EngineFailed, match="not read within 3 s"):
        await asyncio.wait_for(loader.profile(make_card("slow", 1), None), PATIENCE)
    assert len(looks_of(looks)) == 1
    assert living(looks_of(looks)) == []
