"""The model pool by example: shared loads, eviction, waiting, and things that break."""

import asyncio
from collections.abc import Mapping
from functools import partial

import pytest

from application.model_pool import ModelPool
from domain.errors import (
    EngineFailed,
    ModelNotFound,
    ModelTooLarge,
    ServerBusy,
    ShuttingDown,
)
from domain.models import ModelId, ModelState
from tests.fakes import FakeClock, FakeLoader, StuckLoader
from tests.unit.clients import Client, settle
from tests.unit.pools import BUDGET, pool_of

SIZES = {ModelId(f"of-{size}"): size for size in (2, 3, 4, 5, 9, 11)}
SMALL, OTHER, MEDIUM, MIDDLE, LARGE, HUGE = SIZES


make_pool = partial(pool_of, SIZES, retry_after=3.0)


@pytest.fixture
def stuck(clock: FakeClock) -> StuckLoader:
    return StuckLoader(clock)


@pytest.fixture
def pool(loader: FakeLoader, clock: FakeClock) -> ModelPool:
    return make_pool(loader, clock)


@pytest.fixture
def slow_pool(stuck: StuckLoader, clock: FakeClock) -> ModelPool:
    """A pool whose loads hang until they are told to finish."""
    return make_pool(stuck, clock)


async def use(pool: ModelPool, model: ModelId) -> None:
    async with pool.lease(model):
        pass


async def arrive(pool: ModelPool, *models: ModelId) -> list[Client]:
    """Clients, one after the other."""
    clients: list[Client] = []
    for model in models:
        clients.append(Client(pool, model))
        await settle()
    return clients


def states(pool: ModelPool) -> Mapping[ModelId, ModelState]:
    return {resident.id: resident.state for resident in pool.snapshot().residents}


async def test_a_lease_loads_the_model_once(pool: ModelPool, loader: FakeLoader) -> None:
    async with pool.lease(SMALL) as first:
        async with pool.lease(SMALL) as second:
            assert first is second
            assert pool.snapshot().leases == 2
    assert loader.loads == [SMALL]
    assert pool.snapshot().leases == 0
    assert states(pool) == {SMALL: ModelState.HOT}


def test_another_event_loop_is_refused(pool: ModelPool, loader: FakeLoader) -> None:
    asyncio.run(use(pool, SMALL))
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(use(pool, SMALL))
    assert loader.loads == [SMALL]


async def test_a_lease_ends_when_its_block_raises(pool: ModelPool) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pool.lease(SMALL):
            raise ZeroDivisionError
    assert pool.snapshot().leases == 0


async def test_concurrent_leases_share_one_load(slow_pool: ModelPool, stuck: StuckLoader) -> None:
    clients = await arrive(slow_pool, SMALL, SMALL, SMALL)
    (resident,) = slow_pool.snapshot().residents
    assert (resident.state, resident.waiting) == (ModelState.LOADING, 3)
    engine = stuck.finish(SMALL)
    await settle()
    assert [client.engine for client in clients] == [engine] * 3
    assert stuck.loads == [SMALL]


async def test_different_models_load_side_by_side(slow_pool: ModelPool, stuck: StuckLoader) -> None:
    await arrive(slow_pool, SMALL, MEDIUM)
    assert stuck.loading == [SMALL, MEDIUM]


async def test_an_unknown_model_is_not_found(pool: ModelPool) -> None:
    with pytest.raises(ModelNotFound):
        await use(pool, ModelId("nobody"))


async def test_a_model_beyond_the_budget_is_refused(pool: ModelPool, loader: FakeLoader) -> None:
    await use(pool, SMALL)
    with pytest.raises(ModelTooLarge) as caught:
        await use(pool, HUGE)
    assert (caught.value.need, caught.value.budget) == (11, BUDGET)
    assert loader.loads == [SMALL]
    assert states(pool) == {SMALL: ModelState.HOT}


async def test_the_least_recently_used_goes_first(pool: ModelPool, clock: FakeClock) -> None:
    for model in (SMALL, MEDIUM, OTHER, SMALL):
        clock.advance(1)
        await use(pool, model)
    await use(pool, LARGE)
    assert set(states(pool)) == {LARGE}
    for model in (SMALL, MEDIUM, OTHER, SMALL):
        clock.advance(1)
        await use(pool, model)
    assert set(states(pool)) == {SMALL, MEDIUM, OTHER}


async def test_a_model_counts_as_used_until_its_lease_ends(
    pool: ModelPool, clock: FakeClock
) -> None:
    async with pool.lease(MEDIUM):
        clock.advance(1)
        await use(pool, OTHER)
        clock.advance(1)
    await use(pool, MIDDLE)
    assert set(states(pool)) == {MEDIUM, MIDDLE}


async def test_no_more_goes_than_has_to(pool: ModelPool, clock: FakeClock) -> None:
    for model in (OTHER, MEDIUM, SMALL, MIDDLE):
        clock.advance(1)
        await use(pool, model)
    assert set(states(pool)) == {SMALL, MIDDLE}
    await use(pool, OTHER)
    assert set(states(pool)) == {SMALL, MIDDLE, OTHER}


async def test_a_leased_engine_is_never_evicted(pool: ModelPool, loader: FakeLoader) -> None:
    async with pool.lease(SMALL):
        (large,) = await arrive(pool, LARGE)
        assert large.waits
        assert pool.snapshot().waiting == 1
        assert loader.engines[0].closes == 0
    await settle()
    assert large.holds
    assert loader.engines[0].closed
    large.leave()


async def test_those_who_wait_for_memory_are_served_in_order(pool: ModelPool) -> None:
    async with pool.lease(LARGE):
        medium, other = await arrive(pool, MEDIUM, OTHER)
        (again,) = await arrive(pool, LARGE)
        assert [client.waits for client in (medium, other, again)] == [True, True, True]
    await settle()
    assert [client.holds for client in (medium, other, again)] == [True, True, False]
    medium.leave()
    await settle()
    assert again.waits
    other.leave()
    await settle()
    assert again.holds
    again.leave()


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_a_waiter_that_leaves_costs_nobody_a_place(pool: ModelPool, gone: int) -> None:
    async with pool.lease(LARGE):
        clients = await arrive(pool, MEDIUM, SMALL, OTHER)
        clients[gone].vanish()
        await settle()
        assert pool.snapshot().waiting == 2
    await settle()
    assert [client.holds for client in clients] == [n != gone for n in range(3)]
    for client in clients:
        client.leave()
    await settle()
    assert pool.snapshot().leases == 0


async def test_the_head_of_the_queue_leaves_and_those_behind_move_up(
    slow_pool: ModelPool, stuck: StuckLoader
) -> None:
    (small,) = await arrive(slow_pool, SMALL)
    stuck.finish(SMALL)
    await settle()
    large, medium = await arrive(slow_pool, LARGE, MEDIUM)
    assert stuck.loading == []
    large.vanish()
    await settle()
    assert stuck.loading == [MEDIUM]
    assert medium.waits
    assert small.holds


async def test_a_load_goes_on_when_all_who_asked_have_left(
    slow_pool: ModelPool, stuck: StuckLoader
) -> None:
    (client,) = await arrive(slow_pool, SMALL)
    client.vanish()
    await settle()
    stuck.finish(SMALL)
    await settle()
    assert states(slow_pool) == {SMALL: ModelState.HOT}
    assert slow_pool.snapshot().leases == 0


@pytest.mark.parametrize("turns", range(8))
async def test_a_client_that_leaves_as_it_is_granted_leaves_no_lease(
    slow_pool: ModelPool, stuck: StuckLoader, turns: int
) -> None:
    (client,) = await arrive(slow_pool, SMALL)
    stuck.finish(SMALL)
    for _ in range(turns):
        await asyncio.sleep(0)
    client.vanish()
    await settle()
    assert not client.holds
    assert slow_pool.snapshot().leases == 0
    assert states(slow_pool) == {SMALL: ModelState.HOT}


async def test_a_failed_load_fails_all_who_waited_for_it(
    slow_pool: ModelPool, stuck: StuckLoader
) -> None:
    clients = await arrive(slow_pool, SMALL, SMALL)
    error = EngineFailed("no such file")
    stuck.fail(SMALL, error)
    await settle()
    assert [client.error for client in clients] == [error, error]
    assert states(slow_pool) == {}
    (again,) = await arrive(slow_pool, SMALL)
    stuck.finish(SMALL)
    await settle()
    assert again.holds
    assert stuck.loads == [SMALL, SMALL]


async def test_a_failed_load_makes_room_for_the_next_in_line(
    slow_pool: ModelPool, stuck: StuckLoader
) -> None:
    _, medium = await arrive(slow_pool, LARGE, MEDIUM)
    assert medium.waits
    stuck.fail(LARGE)
    await settle()
    assert stuck.loading == [MEDIUM]


async def test_a_dead_engine_is_replaced_on_the_next_lease(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await use(pool, SMALL)
    loader.engines[0].alive = False
    assert pool.state(SMALL) is ModelState.LOADABLE
    async with pool.lease(SMALL) as engine:
        assert engine is loader.engines[1]
        assert engine.alive
    assert loader.engines[0].closed


async def test_a_dead_engine_is_replaced_while_others_still_hold_it(
    pool: ModelPool, loader: FakeLoader
) -> None:
    async with pool.lease(SMALL) as dead:
        loader.engines[0].alive = False
        async with pool.lease(SMALL) as engine:
            assert engine is not dead
            assert pool.snapshot().leases >= 1
    assert pool.snapshot().leases == 0
    assert states(pool) == {SMALL: ModelState.HOT}


async def test_beyond_the_places_and_the_waiting_room_the_server_is_busy(
    stuck: StuckLoader, clock: FakeClock
) -> None:
    """While the model loads, too: who will have a place in its batch takes none in the room."""
    pool = make_pool(stuck, clock, max_waiting=2, slots=3)
    await arrive(pool, *[SMALL] * 5)
    (refused,) = await arrive(pool, SMALL)
    assert isinstance(refused.error, ServerBusy)
    assert refused.error.retry_after == 3.0
    (resident,) = pool.snapshot().residents
    assert resident.waiting == 5


async def test_those_who_wait_for_memory_fill_the_waiting_room_too(
    stuck: StuckLoader, clock: FakeClock
) -> None:
    pool = make_pool(stuck, clock, max_waiting=2, slots=1)
    _, _, _, refused = await arrive(pool, LARGE, LARGE, MEDIUM, SMALL)
    assert isinstance(refused.error, ServerBusy)
    assert pool.snapshot().waiting == 1


async def test_a_full_waiting_room_does_not_stop_those_who_need_not_wait(
    stuck: StuckLoader, clock: FakeClock
) -> None:
    pool = make_pool(stuck, clock, max_waiting=1, slots=1)
    (first,) = await arrive(pool, SMALL)
    stuck.finish(SMALL)
    await settle()
    _, _, same = await arrive(pool, MEDIUM, MEDIUM, SMALL)
    assert same.engine is first.engine


async def test_a_refusal_is_known_beforehand(stuck: StuckLoader, clock: FakeClock) -> None:
    pool = make_pool(stuck, clock, max_waiting=1, slots=1)
    await arrive(pool, SMALL)
    assert pool.refusal(SMALL) is None
    await arrive(pool, SMALL)
    expected = pool.refusal(SMALL)
    (refused,) = await arrive(pool, SMALL)
    assert isinstance(refused.error, ServerBusy)
    assert str(expected) == str(refused.error)
    assert pool.refusal(MEDIUM) is None  # it is not in memory, and may be nowhere at all
    await pool.close(for_loads=0)
    assert pool.refusal(SMALL) is None  # the server is not busy: it ends


async def test_a_refused_client_loads_and_evicts_nothing(
    stuck: StuckLoader, clock: FakeClock
) -> None:
    pool = make_pool(stuck, clock, max_waiting=1, slots=1)
    (idle,) = await arrive(pool, OTHER)
    engine = stuck.finish(OTHER)
    idle.leave()
    await settle()
    _, _, refused = await arrive(pool, MEDIUM, MEDIUM, MIDDLE)
    assert isinstance(refused.error, ServerBusy)
    assert stuck.loading == [MEDIUM]
    assert engine.closes == 0


async def test_the_measured_footprint_replaces_the_estimate(clock: FakeClock) -> None:
    loader = FakeLoader(clock, {SMALL: 3, MEDIUM: 1})
    pool = make_pool(loader, clock)
    await use(pool, SMALL)
    assert pool.snapshot().memory_used == 3
    await use(pool, MEDIUM)
    assert pool.snapshot().memory_used == 4


async def test_idle_models_go_for_one_that_turns_out_larger(clock: FakeClock) -> None:
    loader = FakeLoader(clock, {SMALL: 8})
    pool = make_pool(loader, clock)
    await use(pool, MEDIUM)
    await use(pool, SMALL)
    assert states(pool) == {SMALL: ModelState.HOT}
    assert pool.snapshot().memory_used == 8


async def test_a_model_that_turns_out_smaller_makes_room(clock: FakeClock) -> None:
    loader = StuckLoader(clock, {LARGE: 5})
    pool = make_pool(loader, clock)
    large, medium = await arrive(pool, LARGE, MEDIUM)
    assert loader.loading == [LARGE]
    loader.finish(LARGE)
    await settle()
    assert large.holds
    assert medium.waits
    assert loader.loading == [MEDIUM]


async def test_a_load_waits_until_the_evicted_have_given_their_memory_back(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await use(pool, MEDIUM)
    loader.engines[0].may_close.clear()
    (large,) = await arrive(pool, LARGE)
    assert loader.loads == [MEDIUM]
    loader.engines[0].may_close.set()
    await settle()
    assert large.holds
    large.leave()


async def test_room_that_an_eviction_leaves_over_is_free_once_it_has_been_given_back(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await use(pool, LARGE)
    loader.engines[0].may_close.clear()
    clients = await arrive(pool, MEDIUM, OTHER)
    assert loader.bytes_held <= BUDGET
    loader.engines[0].may_close.set()
    await settle()
    assert [client.holds for client in clients] == [True, True]


async def test_a_dead_engine_keeps_its_room_until_it_has_given_it_back(
    pool: ModelPool, loader: FakeLoader
) -> None:
    await use(pool, LARGE)
    loader.engines[0].alive = False
    loader.engines[0].may_close.clear()
    (again,) = await arrive(pool, LARGE)
    assert loader.bytes_held <= BUDGET
    loader.engines[0].may_close.set()
    await settle()
    assert again.holds


async def test_the_snapshot_tells_the_silence_of_an_engine(
    pool: ModelPool, loader: FakeLoader, clock: FakeClock
) -> None:
    await use(pool, SMALL)
    loader.engines[0].hung_at = clock()
    clock.advance(7)
    (resident,) = pool.snapshot().residents
    assert resident.silence == 7


async def test_closing_closes_every_engine(pool: ModelPool, loader: FakeLoader) -> None:
    await use(pool, SMALL)
    await use(pool, MEDIUM)
    await pool.close()
    assert [engine.closed for engine in loader.engines] == [True, True]
    assert pool.snapshot().closing
    assert states(pool) == {}


async def test_a_closed_pool_grants_nothing(pool: ModelPool) -> None:
    await pool.close()
    with pytest.raises(ShuttingDown):
        await use(pool, SMALL)


async def test_closing_twice_is_harmless(pool: ModelPool, loader: FakeLoader) -> None:
    await use(pool, SMALL)
    await pool.close()
    await pool.close()
    assert loader.engines[0].closed


async def test_closing_with_grace_waits_for_leases(pool: ModelPool, loader: FakeLoader) -> None:
    (client,) = await arrive(pool, SMALL)
    closing = asyncio.create_task(pool.close(grace=60))
    await settle()
    assert not closing.done()
    assert loader.engines[0].closes == 0
    client.leave()
    await closing
    assert loader.engines[0].closed


async def test_closing_without_grace_takes_engines_from_under_leases(
    pool: ModelPool, loader: FakeLoader
) -> None:
    (client,) = await arrive(pool, SMALL)
    await pool.close(grace=0)
    assert loader.engines[0].closed
    client.leave()
    await settle()
    assert pool.snapshot().leases == 0


async def test_grace_ends(pool: ModelPool, loader: FakeLoader) -> None:
    (client,) = await arrive(pool, SMALL)
    await pool.close(grace=0.01)
    assert client.holds
    assert loader.engines[0].closed
    client.leave()
    await settle()


async def test_closing_tells_all_who_wait(slow_pool: ModelPool, stuck: StuckLoader) -> None:
    for_load, for_memory = await arrive(slow_pool, LARGE, MEDIUM)
    closing = asyncio.create_task(slow_pool.close())
    await settle()
    assert isinstance(for_load.error, ShuttingDown)
    assert isinstance(for_memory.error, ShuttingDown)
    engine = stuck.finish(LARGE)
    await closing
    assert engine.closed


async def test_closing_gives_loads_up_in_time(slow_pool: ModelPool, stuck: StuckLoader) -> None:
    (client,) = await arrive(slow_pool, LARGE)
    await slow_pool.close(for_loads=0)
    assert isinstance(client.error, ShuttingDown)
    assert states(slow_pool) == {}
    assert not stuck.engines


async def test_an_error_nobody_thought_of_fails_the_load_in_good_order(
    pool: ModelPool, loader: FakeLoader
) -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    surprise = OSError("disk on fire")
    loader.errors[SMALL] = surprise
    with pytest.raises(EngineFailed):
        await use(pool, SMALL)
    del loader.errors[SMALL]
    await use(pool, SMALL)
    assert states(pool) == {SMALL: ModelState.HOT}
    assert reported in ([], [surprise])
