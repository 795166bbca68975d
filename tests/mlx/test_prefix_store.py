"""States on disk: used as they were written, or not at all."""

import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ConcatenateKVCache

from adapters.mlx.fingerprint import open_store
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.prefix_store import PrefixStore
from domain.models import ModelCard, ModelId
from tests.mlx.disk import ROOM, Disk
from tests.mlx.turns import (
    KINDS,
    SCOPE,
    TRIMMABLE,
    Model,
    have_turn,
    prompt,
    served,
    uncompiled,
)

PROMPT = prompt(1, 90)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.make(tmp_path_factory.mktemp("model"), "plain")


@pytest.fixture
def disk(tmp_path: Path, plain: Model) -> Iterator[Disk]:
    made = Disk(tmp_path, plain)
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_after_a_restart_are_those_without_a_cache(kind: str, tmp_path: Path) -> None:
    with uncompiled():
        model = Model.make(tmp_path, kind)
        disk = Disk(tmp_path / "disk", model)
        cache = disk.cache()
        whole = have_turn(model, cache, PROMPT, [40])
        assert cache.flush(60)
        for tokens, trimmed, exact in [
            (whole + prompt(2, 30), len(whole), len(whole)),
            (PROMPT[:50] + prompt(3, 30), 50, 40),
        ]:
            cache = disk.cache()
            count, said = served(model, cache, tokens, 8)
            assert count == (trimmed if kind in TRIMMABLE else exact)
            assert said == model.answer(tokens, 8)
            assert cache.stats.read_from_disk == 1
            assert cache.find(SCOPE, tokens) is not None  # of memory now
            assert cache.stats.read_from_disk == 1
        disk.close()


def test_files_are_their_owners_alone_and_say_no_scope(disk: Disk) -> None:
    disk.keep(PROMPT, scope="sk-secret-name")
    everything = [disk.root / "kept", *(disk.root / "kept").rglob("*")]
    for path in everything[1:]:
        assert path.stat().st_mode & 0o077 == 0, path
        if path.is_file():
            assert b"secret" not in path.read_bytes()
        assert "secret" not in str(path)


def test_scopes_never_cross(disk: Disk) -> None:
    disk.keep(PROMPT, scope="one key")
    assert disk.cache().find("another key", PROMPT) is None
    assert disk.cache().find("one key", PROMPT) is not None


def test_a_lost_salt_is_a_miss(disk: Disk) -> None:
    disk.keep(PROMPT)
    (salt,) = disk.root.rglob("salt")
    salt.write_bytes(b"short")
    assert disk.cache().find(SCOPE, PROMPT) is None
    assert disk.files == []
    disk.keep(PROMPT)
    assert disk.cache().find(SCOPE, PROMPT) is not None


def test_the_budget_is_kept_and_the_least_recently_used_goes_first(disk: Disk) -> None:
    prompts = [prompt(n, 30) for n in range(5)]
    disk.keep(prompts[0])
    (first,) = disk.files
    disk.budget = 3 * first.stat().st_size
    for n in (1, 2):
        disk.keep(prompts[n])
    time.sleep(0.02)  # times of files are coarse
    assert disk.cache().find(SCOPE, prompts[0]) is not None
    cache = disk.cache()
    for n in (3, 4):
        caches = disk.model.caches()
        disk.model.read(caches, prompts[n])
        cache.keep(SCOPE, prompts[n], caches)
        while not cache.flush(0):  # what is half written counts, too
            assert sum(file.stat().st_size for file in disk.files) <= disk.budget
    cache = disk.cache()
    assert [n for n in range(5) if cache.find(SCOPE, prompts[n])] == [0, 3, 4]
    disk.budget //= 3
    assert len(disk.store()) == 1 == len(disk.files)
    disk.budget = 10
    assert len(disk.store()) == 0 == len(disk.files)


def test_a_longer_state_takes_the_place_of_a_shorter_one(disk: Disk) -> None:
    disk.keep(PROMPT[:40])
    disk.keep(PROMPT)
    assert len(disk.files) == 1
    disk.keep(PROMPT[:50])  # is covered
    assert len(disk.files) == 1


def test_states_forgotten_in_memory_are_not_written(disk: Disk) -> None:
    cache = disk.cache()
    have_turn(disk.model, cache, PROMPT, [])
    cache.shrink(0)
    assert cache.flush(60)
    assert disk.files == []
    have_turn(disk.model, cache, PROMPT, [])
    assert not cache.flush(0)  # a piece of it
    assert len(disk.files) == 1
    cache.shrink(0)
    assert disk.files == []


def test_writing_goes_on_where_it_stopped(disk: Disk) -> None:
    cache = disk.cache()
    have_turn(disk.model, cache, PROMPT, [])
    calls = 0
    while not cache.flush(0):
        calls += 1
        cache.find(SCOPE, PROMPT)
    assert calls > 2
    assert disk.cache().find(SCOPE, PROMPT) is not None


def test_clearing_forgets_the_disk_too(disk: Disk) -> None:
    cache = disk.cache()
    have_turn(disk.model, cache, PROMPT, [])
    cache.flush(60)
    cache.clear()
    assert disk.files == [] and cache.find(SCOPE, PROMPT) is None


def test_a_little_more_is_not_worth_reading(disk: Disk) -> None:
    disk.keep(PROMPT)
    cache = disk.cache()
    assert cache.find(SCOPE, PROMPT[:12]) is None
    caches = disk.model.caches()
    disk.model.read(caches, PROMPT[:80])
    cache.keep(SCOPE, PROMPT[:80], caches)
    found = cache.find(SCOPE, PROMPT)
    assert found is not None and found[0] == 80
    assert cache.stats.read_from_disk == 0


def test_bytes_changed_anywhere_are_a_miss(disk: Disk) -> None:
    disk.keep(PROMPT)
    (file,) = disk.files
    whole = file.read_bytes()
    chance = random.Random(5)  # noqa: S311
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*range(0, 16), *(chance.randrange(header) for _ in range(30))]
    places += [chance.randrange(len(whole)) for _ in range(30)]
    places += [len(whole) - 1, len(whole) - 4, len(whole) - 9]
    for place in places:
        harmed = bytearray(whole)
        harmed[place] ^= 1 << chance.randrange(8)
        file.write_bytes(harmed)
        assert disk.cache().find(SCOPE, PROMPT) is None, place
        assert disk.files == [], place
    file.write_bytes(whole)
    assert disk.cache().find(SCOPE, PROMPT) is not None


def test_bytes_changed_after_the_start_are_a_miss(disk: Disk) -> None:
    disk.keep(PROMPT)
    (file,) = disk.files
    whole = bytearray(file.read_bytes())
    cache = disk.cache()
    for place in (3, 100, len(whole) // 2):
        whole[place] ^= 1
        file.write_bytes(whole)
        assert cache.find(SCOPE, PROMPT) is None
        assert disk.files == []
        whole[place] ^= 1
        file.write_bytes(whole)
        cache = disk.cache()
    file.unlink()
    assert cache.find(SCOPE, PROMPT) is None


def test_files_cut_short_are_a_miss(disk: Disk) -> None:
    disk.keep(PROMPT)
    (file,) = disk.files
    whole = file.read_bytes()
    for size in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert disk.cache().find(SCOPE, PROMPT) is None
        assert disk.files == []
    file.write_bytes(whole + b"more")
    assert disk.cache().find(SCOPE, PROMPT) is None
    assert disk.files == []


def test_files_of_another_model_and_of_others_are_a_miss(disk: Disk) -> None:
    disk.keep(PROMPT)
    (file,) = disk.files
    copy = disk.root / "copy"
    shutil.copy(file, copy)
    disk.revision = "2"
    store = disk.store()
    assert disk.files == []  # other weights under the same name
    shutil.copy(copy, store._folder / file.name)
    mx.save_safetensors(str(store._folder / "theirs"), {"tokens": mx.zeros((3,), mx.bfloat16)})
    mx.save_safetensors(str(store._folder / "more"), {"a": mx.zeros((3,))}, {"format": "mlx"})
    for dtype in ("BF16", "F8_E4M3", "F8_E8M0", "F4", "C64"):
        size = {"C64": 8, "BF16": 2}.get(dtype, 1)
        shape = [2] if dtype == "F4" else [1]
        described = {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}
        header = json.dumps({"tokens": described}).encode()
        (store._folder / f"{dtype}.safetensors").write_bytes(
            len(header).to_bytes(8, "little") + header + b"1" * size
        )
    (store._folder / "half.tmp").write_bytes(b"...")
    assert len(disk.files) == 9
    assert disk.cache().find(SCOPE, PROMPT) is None
    assert disk.files == []


def test_states_of_caches_made_otherwise_are_a_miss(disk: Disk) -> None:
    disk.keep(PROMPT)
    (file,) = disk.files
    disk.close()
    home = file.parents[1]
    store = PrefixStore(home.parent, "some/model", file.parent.name, [["KVCache", 2, [], []]], ROOM)
    cache = PrefixCache(ROOM, store)
    assert cache.find(SCOPE, PROMPT) is None
    assert disk.files == []
    cache.close()


def test_what_is_too_large_for_memory_is_not_read(disk: Disk) -> None:
    disk.keep(PROMPT)
    cache = PrefixCache(1000, disk.store())
    assert cache.find(SCOPE, PROMPT) is None
    assert cache.stats.read_from_disk == 0 and len(disk.files) == 1


def test_states_are_of_one_version_of_the_weights(disk: Disk) -> None:
    disk.keep(PROMPT)
    os.utime(disk.location / "model.safetensors", (1, 1))
    assert disk.cache().find(SCOPE, PROMPT) is None
    disk.keep(PROMPT)
    (disk.location / "config.json").write_text('{"rope_theta": 2}')
    assert disk.cache().find(SCOPE, PROMPT) is None


def test_a_disk_that_takes_no_more_is_given_no_more(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.keep(prompt(9, 20))
    cache = disk.cache()
    have_turn(disk.model, cache, PROMPT, [])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with caplog.at_level(logging.WARNING):
            assert cache.flush(60)
            have_turn(disk.model, cache, prompt(2, 80), [])
            assert cache.flush(60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caplog.records) == 1
    assert len(disk.files) == 1  # and no half of one
    assert cache.find(SCOPE, PROMPT) is not None
    assert disk.cache().find(SCOPE, prompt(9, 20)) is not None


def test_what_cannot_be_kept_is_said_once_and_served_without(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    card = ModelCard(ModelId.parse("some/model"), "1", disk.location, 7, 512, 0)
    caches = disk.model.caches()
    in_the_way = disk.root / "file"
    in_the_way.write_text("")
    assert open_store(in_the_way, card, None, caches, ROOM) is None
    assert open_store(disk.root, card, None, [ConcatenateKVCache()], ROOM) is None
    disk.store()
    assert open_store(disk.root / "kept", card, None, caches, ROOM) is None  # in use
    assert len(caplog.records) == 3


WRITER = """
import os, signal, sys
from pathlib import Path
from tests.mlx.disk import Disk
from tests.mlx.turns import Model, SCOPE, prompt

root, pieces = Path(sys.argv[1]), int(sys.argv[2])
model = Model.make(root / "weights", "plain")
disk = Disk(root, model)
disk.budget = 200_000  # some are deleted for others
cache = disk.cache()
for n in range(pieces):
    tokens = prompt(n, 40)
    caches = model.caches()
    model.read(caches, tokens)
    cache.keep(SCOPE, tokens, caches)
    while not cache.flush(0):
        pieces -= 1
        if not pieces:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("pieces", [1, 50])
def test_a_kill_amid_writing_leaves_only_whole_files(disk: Disk, pieces: int) -> None:
    command = [sys.executable, "-c", WRITER, str(disk.root), str(pieces)]
    writer = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)  # noqa: S603
    assert writer.returncode == -signal.SIGKILL
    left = disk.files
    store = disk.store()
    assert sum(file.suffix == ".tmp" for file in left) == 1
    assert len(store) == len(left) - 1 == len(disk.files)
    cache = PrefixCache(ROOM, store)
    prompts = [[*prompt(n, 40), 1] for n in range(pieces)]
    found = [tokens for tokens in prompts if cache.find(SCOPE, tokens)]
    assert len(found) == len(store)
    for tokens in found:
        assert served(disk.model, cache, tokens, 4)[1] == disk.model.answer(tokens, 4)
