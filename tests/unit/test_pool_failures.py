"""Engines that die and engines that hang: what the pool makes of them."""

import asyncio
from functools import partial

import pytest

from application.model_pool import ModelPool
from application.pool_state import PoolEventKind, PoolLimits
from domain.errors import EngineFailed, EngineResting, MemoryBusy, ModelUnusable
from domain.memory import MemoryProfile
from domain.models import ModelCard, ModelId
from tests.fakes import FakeClock, FakeEngine, FakeLoader, StuckLoader
from tests.unit.clients import Client, settle
from tests.unit.pools import pool_of

HANG = 30.0
A, B = ModelId("a"), ModelId("b")


make_pool = partial(pool_of, {A: 4, B: 4}, hang_timeout=HANG)


@pytest.fixture
def pool(loader: FakeLoader, clock: FakeClock) -> ModelPool:
    return make_pool(loader, clock)


async def die(pool: ModelPool, loader: FakeLoader, model: ModelId = A) -> None:
    """A request during which the engine breaks."""
    with pytest.raises(EngineFailed, match="broke"):
        async with pool.lease(model):
            loader.engines[-1].alive = False
            raise EngineFailed("The engine broke.")


async def test_the_first_death_is_followed_by_a_fresh_engine_at_once(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await die(pool, loader)
    async with pool.lease(A) as engine:
        assert engine is loader.engines[1]


async def test_repeated_deaths_back_off_and_say_when_to_come_back(
    pool: ModelPool, loader: FakeLoader, clock: FakeClock
) -> None:
    await die(pool, loader)
    for pause in (1.0, 2.0, 4.0):
        await die(pool, loader)
        loads = len(loader.loads)
        with pytest.raises(EngineResting) as refusal:
            async with pool.lease(A):
                pass
        assert refusal.value.retry_after == pause
        clock.advance(pause / 2)
        with pytest.raises(EngineResting) as refusal:
            await pool.load(A)
        assert refusal.value.retry_after == pause / 2
        assert len(loader.loads) == loads
        clock.advance(pause / 2)


async def test_others_do_not_rest(pool: ModelPool, loader: FakeLoader) -> None:
    await die(pool, loader)
    await die(pool, loader)
    async with pool.lease(B):
        pass


async def test_a_success_forgets_the_deaths(
    pool: ModelPool, loader: FakeLoader, clock: FakeClock
) -> None:
    for _ in range(2):
        await die(pool, loader)
    (failing,) = pool.snapshot().failing
    assert (failing.id, failing.deaths, failing.retry_after) == (A, 2, 1.0)
    assert "broke" in failing.reason
    clock.advance(1.0)
    async with pool.lease(A):
        assert pool.snapshot().failing  # not yet
    assert pool.snapshot().failing == ()
    await die(pool, loader)
    async with pool.lease(A):
        pass


async def test_an_operator_who_unloads_it_ends_its_rest(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await die(pool, loader)
    await die(pool, loader)
    assert not await pool.unload(A)
    assert pool.snapshot().failing == ()
    await pool.load(A)


async def test_a_request_that_fails_is_no_success(pool: ModelPool, loader: FakeLoader) -> None:
    await die(pool, loader)
    with pytest.raises(EngineFailed):
        async with pool.lease(A):
            raise EngineFailed("This request alone.")
    assert pool.snapshot().failing[0].deaths == 1


async def test_who_waits_for_memory_hears_of_the_rest(loader: FakeLoader, clock: FakeClock) -> None:
    pool = make_pool(loader, clock, budget=4)
    other = Client(pool, B)
    await settle()
    waiting = Client(pool, A)
    await settle()
    assert waiting.waits
    pool._residents.failures.died(A, 0.0, "it broke")
    pool._residents.failures.died(A, 0.0, "it broke")
    other.leave()
    await settle()
    assert isinstance(waiting.error, EngineResting)


async def test_failed_loads_are_deaths_but_unusable_models_are_not(
    pool: ModelPool, loader: FakeLoader
) -> None:
    loader.errors[A] = EngineFailed("It was killed amid its load.")
    loader.errors[B] = ModelUnusable("It is damaged.")
    for _ in range(2):
        with pytest.raises(EngineFailed, match="killed"):
            await pool.load(A)
    with pytest.raises(EngineResting, match="killed"):
        await pool.load(A)
    for _ in range(5):
        with pytest.raises(ModelUnusable):
            await pool.load(B)


async def hang(pool: ModelPool, loader: FakeLoader, clock: FakeClock) -> tuple[Client, FakeEngine]:
    """A client whose engine has been silent for too long, and can't be closed."""
    client = Client(pool, A)
    await settle()
    engine = loader.engines[-1]
    engine.hung_at = clock()
    engine.may_close.clear()
    clock.advance(HANG)
    return client, engine


async def test_a_hung_engine_is_seen_at_once_and_given_up_by_itself(loader: FakeLoader) -> None:
    loop = asyncio.get_running_loop()
    loader = FakeLoader(loop.time)
    pool = make_pool(loader, loop.time, hang_timeout=0.05)
    events = pool.events()
    client = Client(pool, A)
    await settle()
    (engine,) = loader.engines
    engine.hung_at = loop.time()
    engine.may_close.clear()
    while (await asyncio.wait_for(anext(events), 5)).kind is not PoolEventKind.HUNG:
        pass
    await settle()
    assert isinstance(engine.error, EngineFailed)
    assert "hung" in str(engine.error)
    assert pool.snapshot().hung == (A,)
    client.leave()
    await asyncio.wait_for(pool.close(), 5)


async def test_an_engine_that_dies_amid_no_work_is_noticed_by_itself(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await pool.load(A)
    events = pool.events()
    loader.engines[-1].alive = False
    event = await asyncio.wait_for(anext(events), HANG / 2)
    assert (event.kind, event.model) == (PoolEventKind.DIED, A)
    assert pool.snapshot().failing[0].id == A
    await pool.close()


async def test_a_hung_engine_is_replaced_where_memory_allows_and_keeps_its_own(
    pool: ModelPool, loader: FakeLoader, clock: FakeClock
) -> None:
    client, engine = await hang(pool, loader, clock)
    assert pool.snapshot().hung == (A,)
    async with pool.lease(A) as fresh:
        assert fresh is not engine
        assert pool.snapshot().memory_used == 8
    client.leave()
    await settle()
    assert pool.snapshot().hung == (A,)
    engine.may_close.set()
    await settle()
    snapshot = pool.snapshot()
    assert (snapshot.hung, snapshot.memory_used, snapshot.leases) == ((), 4, 0)


async def test_an_unload_that_hangs_is_told_and_blocks_nobody(
    loader: FakeLoader, clock: FakeClock
) -> None:
    pool = make_pool(loader, clock, budget=7)
    await pool.load(A)
    (engine,) = loader.engines
    engine.may_close.clear()
    unloading = asyncio.create_task(pool.unload(A))
    await settle()
    waiting = Client(pool, B)
    await settle()
    assert waiting.waits
    assert pool.snapshot().hung == ()
    clock.advance(HANG + 10)
    with pytest.raises(EngineFailed, match="keeps its memory"):
        await asyncio.wait_for(unloading, 5)
    await settle()
    assert isinstance(waiting.error, MemoryBusy)
    assert pool.snapshot().hung == (A,)
    await asyncio.wait_for(pool.close(), 5)


async def test_nobody_waits_for_memory_that_a_hung_engine_holds(
    loader: FakeLoader, clock: FakeClock
) -> None:
    pool = make_pool(loader, clock, budget=7)
    client, engine = await hang(pool, loader, clock)
    for model in (A, B):
        with pytest.raises(MemoryBusy, match="hung"):
            await asyncio.wait_for(pool.load(model), 5)
    client.leave()
    engine.may_close.set()
    await settle()
    await pool.load(B)


async def test_a_hung_engine_does_not_hold_up_the_exit(
    pool: ModelPool, loader: FakeLoader, clock: FakeClock
) -> None:
    client, _ = await hang(pool, loader, clock)
    client.leave()
    await settle()
    await asyncio.wait_for(pool.close(), 5)


LOAD = 300.0  # seconds; the weights here are next to nothing


async def test_a_load_that_hangs_is_given_up_and_who_waits_is_told(clock: FakeClock) -> None:
    loader = StuckLoader(clock)
    loader.may_stop.clear()  # as a thread
    pool = make_pool(loader, clock)
    waiting = [Client(pool, A) for _ in range(3)]
    await settle()
    clock.advance(LOAD - 1)
    other = Client(pool, B)  # looks at all of them
    await settle()
    assert all(client.waits for client in waiting)
    clock.advance(1.5)
    other.vanish()
    await settle()
    assert all(isinstance(client.error, EngineFailed) for client in waiting)
    assert "load hung: it did not end within 300 s" in str(waiting[0].error)
    snapshot = pool.snapshot()
    assert snapshot.hung == (A,)
    assert snapshot.leaving == 4  # nobody can take it from a thread
    assert snapshot.failing[0].id == A
    loader.finish(B)
    await settle()
    pool_has_b = pool.snapshot().find(B)
    assert pool_has_b
    loader.may_stop.set()
    await settle()
    assert (pool.snapshot().hung, pool.snapshot().leaving) == ((), 0)
    fresh = Client(pool, A)
    await settle()
    loader.finish(A)
    await settle()
    assert fresh.holds
    fresh.leave()
    await pool.close()


async def test_a_load_that_hangs_is_noticed_by_itself() -> None:
    loop = asyncio.get_running_loop()
    loader = StuckLoader(loop.time)
    pool = make_pool(loader, loop.time, load_timeout=0.05)
    with pytest.raises(EngineFailed, match="load hung"):
        await asyncio.wait_for(pool.load(A), 5)
    await settle()
    assert pool.snapshot().memory_used == 0
    assert loader.loading == []
    await asyncio.wait_for(pool.close(), 5)


async def test_a_hung_load_neither_blocks_others_nor_the_exit(clock: FakeClock) -> None:
    loader = StuckLoader(clock)
    loader.may_stop.clear()
    pool = make_pool(loader, clock, budget=7)
    hung = Client(pool, A)
    await settle()
    clock.advance(LOAD + 1)
    with pytest.raises(MemoryBusy, match="hung"):
        await asyncio.wait_for(pool.load(B), 5)
    assert isinstance(hung.error, EngineFailed)
    await asyncio.wait_for(pool.close(), 5)


async def test_a_large_model_from_a_slow_disk_is_waited_for() -> None:
    limits = PoolLimits(10)
    assert limits.longest_load(400 * 10**9) > 5 * 3600
    assert limits.longest_load(0) == LOAD


async def test_files_that_are_never_read_are_told() -> None:
    class Deaf(FakeLoader):
        async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
            await asyncio.Event().wait()
            raise AssertionError

    loop = asyncio.get_running_loop()
    pool = make_pool(Deaf(loop.time), loop.time, load_timeout=0.05)
    with pytest.raises(EngineFailed, match="not read within"):
        await asyncio.wait_for(pool.load(A), 5)
    with pytest.raises(EngineFailed, match="not read within"):
        await asyncio.wait_for(pool.estimate(A), 5)
