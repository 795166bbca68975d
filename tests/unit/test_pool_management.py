"""What an operator asks of the pool: load, unload, pin, estimate, watch, and let idle models go."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from application.manage_models import DeleteModel, DescribeModels, PreloadModels
from application.model_pool import ModelPool
from application.pool_state import PoolEvent, PoolEventKind, PoolLimits
from application.pull_models import PullModels
from domain.errors import (
    EngineFailed,
    InvalidRequest,
    MemoryBusy,
    ModelBeingPulled,
    ModelInUse,
    ModelNotFound,
    ModelTooLarge,
    ModelUnusable,
)
from domain.memory import CacheLayers, MemoryProfile, ModelPolicy
from domain.models import ModelCard, ModelId, ModelState
from domain.residency import Fit
from tests.fakes import (
    FakeCatalog,
    FakeClock,
    FakeJournal,
    FakeLoader,
    FakeSource,
    StuckLoader,
    make_card,
)
from tests.unit.clients import Client, settle
from tests.unit.pools import BUDGET, pool_of

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")
SIZES = {A: 4, B: 5, C: 6}
CARDS = {model: make_card(str(model), size) for model, size in SIZES.items()}


make_pool = partial(pool_of, SIZES, retry_after=3.0)


@pytest.fixture
def pool(loader: FakeLoader, clock: FakeClock) -> ModelPool:
    return make_pool(loader, clock)


def loaded(pool: ModelPool) -> set[ModelId]:
    residents = pool.snapshot().residents
    return {resident.id for resident in residents if resident.state is ModelState.HOT}


async def holding(pool: ModelPool, model: ModelId) -> Client:
    client = Client(pool, model)
    await settle()
    assert client.holds
    return client


async def test_a_model_is_loaded_before_anyone_asks_for_it(pool: ModelPool) -> None:
    resident = await pool.load(A)
    assert (resident.id, resident.state) == (A, ModelState.HOT)
    assert loaded(pool) == {A}
    assert pool.snapshot().leases == 0


async def test_loading_what_is_loaded_changes_nothing(pool: ModelPool, loader: FakeLoader) -> None:
    await pool.load(A)
    await pool.load(A, wait=False)
    assert loader.loads == [A]


class BrokenCatalog(FakeCatalog):
    """Fails at B in a way that nobody foresaw."""

    async def find(self, model: ModelId) -> ModelCard:
        if model == B:
            raise OSError("the disk is gone")
        return await super().find(model)


async def test_what_fails_at_start_up_keeps_nothing_else_from_loading(
    loader: FakeLoader, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ModelPool(BrokenCatalog(*CARDS.values()), loader, clock, PoolLimits(BUDGET))
    loader.errors[A] = EngineFailed("no")
    preload = PreloadModels(pool)
    await preload([A, B, C])
    assert preload.done
    assert loaded(pool) == {C}
    assert "a could not be loaded at start-up: no" in caplog.text
    assert "b could not be loaded at start-up" in caplog.text
    assert caplog.text.endswith("Fault: OSError\n")  # its words may be anything


async def test_who_will_not_wait_is_told_the_numbers(pool: ModelPool) -> None:
    client = await holding(pool, B)
    with pytest.raises(MemoryBusy, match="once requests to other models have ended") as caught:
        await pool.load(C, wait=False)
    assert caught.value.retry_after == 3.0
    client.leave()
    await settle()
    await pool.load(C, wait=False)
    assert loaded(pool) == {C}


async def test_nobody_who_will_not_wait_overtakes(pool: ModelPool) -> None:
    await holding(pool, B)
    waiting = Client(pool, C)
    await settle()
    assert waiting.waits
    with pytest.raises(MemoryBusy):
        await pool.load(A, wait=False)


async def test_the_last_to_wait_for_memory_is_told_the_numbers(
    loader: FakeLoader, clock: FakeClock
) -> None:
    pool = make_pool(loader, clock, max_waiting=1)
    await holding(pool, B)
    Client(pool, C)
    late = Client(pool, C)
    await settle()
    assert isinstance(late.error, MemoryBusy)
    assert "The budget is" in str(late.error)
    assert "max_waiting" in str(late.error)


async def test_an_idle_model_is_unloaded_at_once(pool: ModelPool, loader: FakeLoader) -> None:
    await pool.load(A)
    assert await pool.unload(A) is True
    assert loader.engines[0].closed
    assert pool.snapshot().memory_used == 0
    assert await pool.unload(A) is False


async def test_unloading_returns_once_the_memory_is_free(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await pool.load(A)
    loader.engines[0].may_close.clear()
    unloading = asyncio.create_task(pool.unload(A))
    await settle()
    assert not unloading.done()
    assert pool.snapshot().memory_used == SIZES[A]
    loader.engines[0].may_close.set()
    assert await unloading is True


async def test_a_model_in_use_is_unloaded_only_by_force(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await holding(pool, A)
    with pytest.raises(ModelInUse):
        await pool.unload(A)
    assert loader.engines[0].alive
    assert await pool.unload(A, force=True) is True
    error = loader.engines[0].error
    assert isinstance(error, EngineFailed)
    assert "was unloaded" in str(error)


async def test_a_load_is_not_interrupted(clock: FakeClock) -> None:
    stuck = StuckLoader(clock)
    pool = make_pool(stuck, clock)
    client = Client(pool, A)
    await settle()
    with pytest.raises(ModelInUse, match="nothing interrupts"):
        await pool.unload(A, force=True)
    stuck.finish(A)
    await settle()
    assert client.holds


async def test_a_pinned_model_stays_and_others_are_told(pool: ModelPool) -> None:
    await pool.load(A)
    await pool.pin(A, True)
    await pool.load(B)
    with pytest.raises(MemoryBusy):
        await holding(pool, B)
        await pool.load(C, wait=False)
    assert A in loaded(pool)
    await pool.pin(B, True)
    with pytest.raises(ModelTooLarge, match="unpin a model"):
        await pool.load(C)


async def test_a_waiter_hears_of_it_when_a_pin_ends_its_hope(pool: ModelPool) -> None:
    await holding(pool, B)
    waiting = Client(pool, C)
    await settle()
    await pool.pin(B, True)
    await settle()
    assert isinstance(waiting.error, ModelTooLarge)


async def test_pinned_models_leave_the_others_what_is_over(pool: ModelPool) -> None:
    first = await holding(pool, B)
    await pool.pin(A, True)
    await pool.load(A)
    waiting = Client(pool, C)
    await settle()
    first.leave()
    await settle()
    assert waiting.holds  # A and C fit together, once B has gone
    assert loaded(pool) == {A, C}


async def test_only_what_exists_is_pinned(pool: ModelPool) -> None:
    with pytest.raises(ModelNotFound):
        await pool.pin(ModelId("nobody"), True)


async def test_idle_models_leave_when_their_time_has_come(
    loader: FakeLoader, clock: FakeClock
) -> None:
    pool = make_pool(loader, clock, policies={A: ModelPolicy(idle_ttl=60.0)})
    client = await holding(pool, A)
    await pool.load(B)
    clock.advance(100.0)
    pool.expire_idle()
    assert loaded(pool) == {A, B}  # one is in use, the other may stay for good
    client.leave()
    await settle()
    clock.advance(59.0)
    pool.expire_idle()
    assert loaded(pool) == {A, B}
    clock.advance(1.0)
    pool.expire_idle()
    assert loaded(pool) == {B}


async def test_a_pinned_model_has_no_time_to_live(loader: FakeLoader, clock: FakeClock) -> None:
    pool = make_pool(loader, clock, policies={A: ModelPolicy(idle_ttl=60.0, pinned=True)})
    await pool.load(A)
    clock.advance(100.0)
    pool.expire_idle()
    assert loaded(pool) == {A}
    await pool.pin(A, False)
    pool.expire_idle()
    assert loaded(pool) == set()


async def test_time_to_live_passes_by_itself() -> None:
    loop = asyncio.get_running_loop()
    loader = FakeLoader(loop.time)
    pool = make_pool(loader, loop.time, policy=ModelPolicy(idle_ttl=0.02))
    await pool.load(A)
    events = pool.events()
    kinds = [(await asyncio.wait_for(anext(events), 5)).kind for _ in range(2)]
    assert kinds == [PoolEventKind.UNLOADING, PoolEventKind.UNLOADED]


async def test_an_estimate_takes_what_is_asked_for_else_what_is_set(
    loader: FakeLoader, clock: FakeClock
) -> None:
    loader.layers = (CacheLayers(bytes_per_token=1),)
    pool = make_pool(loader, clock, policies={A: ModelPolicy(concurrency=3)}, budget=10_000)
    told = await pool.estimate(A)
    assert (told.plan.context_length, told.plan.concurrency) == (512, 3)
    assert told.need.total == SIZES[A] + 3 * 512
    told = await pool.estimate(A, context_length=256, concurrency=30)
    assert told.need.kv_cache == 30 * 256
    assert told.fit is Fit.NOW
    told = await pool.estimate(A, concurrency=32)
    assert told.fit is Fit.NEVER


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"context_length": 513}, "context_length"),
        ({"context_length": 0}, "context_length"),
        ({"concurrency": 33}, "concurrency"),
        ({"concurrency": 0}, "concurrency"),
        ({"kv_bits": 3}, "kv_bits"),
    ],
)
async def test_an_estimate_of_the_impossible_is_refused(
    pool: ModelPool, asked: dict[str, int], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await pool.estimate(A, **asked)
    assert caught.value.param == param


async def test_reserves_count_against_the_budget(loader: FakeLoader, clock: FakeClock) -> None:
    loader.layers = (CacheLayers(bytes_per_token=1),)
    policy = ModelPolicy(concurrency=8)
    pool = make_pool(loader, clock, policies={A: policy, B: policy}, budget=8 * 512 + 100)
    await pool.load(A)
    await pool.load(B)
    assert loaded(pool) == {B}
    assert pool.snapshot().memory_used == 8 * 512 + SIZES[B]


async def test_what_happens_can_be_watched(pool: ModelPool) -> None:
    events = pool.events()
    await pool.load(A)
    await pool.pin(A, True)
    await pool.pin(A, False)
    await pool.load(C)
    await pool.load(B)
    await pool.unload(B)
    await pool.close()
    heard: list[PoolEvent] = [event async for event in events]
    assert [(event.kind.value, event.model) for event in heard] == [
        ("loading", A),
        ("loaded", A),
        ("pinned", A),
        ("unpinned", A),
        ("loading", C),
        ("loaded", C),
        ("unloading", A),
        ("unloading", C),
        ("unloaded", A),
        ("unloaded", C),
        ("loading", B),
        ("loaded", B),
        ("unloading", B),
        ("unloaded", B),
    ]
    assert all(event.memory_used <= event.memory_budget == BUDGET for event in heard)


async def test_a_failed_load_is_told_with_its_reason(pool: ModelPool, loader: FakeLoader) -> None:
    loader.errors[A] = EngineFailed("No such layer.")
    events = pool.events()
    with pytest.raises(EngineFailed):
        await pool.load(A)
    await anext(events)
    failed = await anext(events)
    assert (failed.kind, failed.reason) == (PoolEventKind.LOAD_FAILED, "No such layer.")


async def test_a_waiting_request_is_told_what_for(clock: FakeClock) -> None:
    stuck = StuckLoader(clock)
    pool = make_pool(stuck, clock)
    Client(pool, B)
    await settle()
    assert pool.reason_to_wait(B) == "loading b"
    assert pool.reason_to_wait(C) == "waiting for memory to load c"
    stuck.finish(B)
    await settle()
    assert pool.reason_to_wait(B) == "waiting"


async def test_models_are_described_with_what_they_hold(
    loader: FakeLoader, clock: FakeClock
) -> None:
    pool = make_pool(loader, clock, policies={B: ModelPolicy(pinned=True, context_length=256)})
    describe = DescribeModels(FakeCatalog(*CARDS.values()), pool)
    await pool.load(A)
    clock.advance(7.0)
    hot, pinned, _ = await describe()
    assert hot.resident is not None
    assert (hot.listed.card, hot.resident.idle, hot.pinned) == (CARDS[A], 7.0, False)
    assert (pinned.resident, pinned.pinned, pinned.listed.context_length) == (None, True, 256)
    assert await describe.one(A) == hot


async def test_the_last_use_is_remembered(pool: ModelPool, clock: FakeClock) -> None:
    assert pool.idle(A) is None
    client = await holding(pool, A)
    clock.advance(5.0)
    assert pool.idle(A) == 0.0
    client.leave()
    await settle()
    clock.advance(7.0)
    await pool.unload(A)
    clock.advance(1.0)
    assert pool.idle(A) == 8.0
    await holding(pool, A)
    await pool.unload(A, force=True)
    clock.advance(2.0)
    assert (pool.idle(A), pool.idle(B)) == (2.0, None)


async def test_a_deleted_model_leaves_memory_and_disk(pool: ModelPool) -> None:
    catalog = FakeCatalog(*CARDS.values())
    delete = DeleteModel(catalog, pool, PullModels(FakeSource(), FakeJournal()))
    client = await holding(pool, A)
    with pytest.raises(ModelInUse):
        await delete(A)
    client.leave()
    await settle()
    assert await delete(A) == SIZES[A]
    assert loaded(pool) == set()
    with pytest.raises(ModelNotFound):
        await catalog.find(A)


async def test_a_model_in_memory_is_described_as_it_is_there(
    loader: FakeLoader, clock: FakeClock
) -> None:
    old, new = replace(CARDS[A], revision="old"), replace(CARDS[A], revision="new", weight_bytes=5)
    catalog = FakeCatalog(old)
    pool = ModelPool(catalog, loader, clock, PoolLimits(BUDGET))
    describe = DescribeModels(catalog, pool)
    await pool.load(A)
    catalog.put(new)
    hot = (await describe.one(A)).listed
    assert (hot.card, hot.newer_revision) == (old, "new")
    await pool.unload(A)
    cold = (await describe.one(A)).listed
    assert (cold.card, cold.newer_revision) == (new, None)
    await pool.load(A)
    assert (await describe.one(A)).listed.card == new


async def test_a_newer_revision_that_is_broken_leaves_the_one_in_memory_alone(
    clock: FakeClock,
) -> None:
    class Choosy(FakeLoader):
        async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
            if card.revision == "broken":
                raise ModelUnusable("No such layer.")
            return await super().profile(card, kv_bits)

    catalog = FakeCatalog(CARDS[A])
    pool = ModelPool(catalog, Choosy(clock), clock, PoolLimits(BUDGET))
    await pool.load(A)
    catalog.put(replace(CARDS[A], revision="broken"))
    async with pool.lease(A) as engine:
        assert engine.alive
    await pool.unload(A)
    with pytest.raises(ModelUnusable):
        await pool.load(A)


async def test_a_model_that_is_being_pulled_is_not_deleted(pool: ModelPool) -> None:
    source = FakeSource()
    source.may_go_on.clear()
    pulls = PullModels(source, FakeJournal())
    delete = DeleteModel(FakeCatalog(*CARDS.values()), pool, pulls)
    job = pulls.start(A, "main").id
    await settle()
    with pytest.raises(ModelBeingPulled, match=f"job {job}"):
        await delete(A)
    assert await delete(B) == SIZES[B]
    await pulls.cancel(job)
    assert await delete(A) == SIZES[A]
