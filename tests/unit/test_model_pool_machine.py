"""The model pool under any order of events."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from domain.errors import DomainError
from domain.memory import CacheLayers, ModelPolicy
from domain.models import ModelId, ModelState
from tests.fakes import FakeCatalog, FakeClock, FakeEngine, StuckLoader, make_card
from tests.unit.clients import Client, Preloader, settle

BUDGET = 10_000
PLACES = 2  # in the batch of each model
MAX_WAITING = 5
IDLE_TTL = 90.0
KV = 2 * 512  # two requests of 512 tokens, a byte each
NEEDS = {
    ModelId(name): need
    for name, need in (("a", 2_000), ("b", 4_000), ("c", 5_000), ("d", 9_000), ("e", 11_000))
}
POLICY = ModelPolicy(context_length=512, concurrency=2)
POLICIES = {
    ModelId("b"): replace(POLICY, idle_ttl=IDLE_TTL),
    ModelId("c"): replace(POLICY, pinned=True),
}

positions = st.integers(0, 30)  # of whom a rule is about, counted round the list


class PoolMachine(RuleBasedStateMachine):
    """Rules only start things; whether the loop turns before the next rule is a rule as well."""

    slow_to_close = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.loader = StuckLoader(self.clock, slow_to_close=self.slow_to_close)
        self.loader.layers = (CacheLayers(bytes_per_token=1),)
        cards = (make_card(str(model), need - KV) for model, need in NEEDS.items())
        limits = PoolLimits(
            BUDGET,
            MAX_WAITING,
            load_timeout=1e9,  # loads here take as long as the rules like
            slots=PLACES,
            policy=POLICY,
            policies=POLICIES,
        )
        self.pool = ModelPool(FakeCatalog(*cards), self.loader, self.clock, limits)
        self.clients: list[Client] = []  # in order of arrival
        self.vanished: list[Client] = []
        self.killed: list[FakeEngine] = []
        self.unloaded: list[FakeEngine] = []  # by force
        self.asked: set[asyncio.Task[object]] = set()  # what operators have asked for
        self.unheard: list[object] = []  # what nobody caught
        self.loop.set_exception_handler(lambda _, context: self.unheard.append(context))
        self.settled = True

    @property
    def waiting(self) -> list[Client]:
        return [client for client in self.clients if client.waits]

    @property
    def holding(self) -> list[Client]:
        return [client for client in self.clients if client.holds]

    @property
    def open_engines(self) -> list[FakeEngine]:
        return [engine for engine in self.loader.engines if not engine.closed]

    @property
    def closing_engines(self) -> list[FakeEngine]:
        return [engine for engine in self.open_engines if engine.closes]

    @property
    def resident(self) -> set[ModelId]:
        return {resident.id for resident in self.pool.snapshot().residents}

    def settle(self) -> None:
        self.loop.run_until_complete(settle())
        self.settled = True

    @rule(model=st.sampled_from(list(NEEDS)))
    def arrives(self, model: ModelId) -> None:
        self.clients.append(Client(self.pool, model, self.loop))
        self.settled = False

    @precondition(lambda self: self.holding)
    @rule(position=positions)
    def leaves(self, position: int) -> None:
        self.holding[position % len(self.holding)].leave()
        self.settled = False

    @precondition(lambda self: self.waiting or self.holding)
    @rule(position=positions)
    def vanishes(self, position: int) -> None:
        present = self.waiting + self.holding
        client = present[position % len(present)]
        client.vanish()
        self.vanished.append(client)
        self.settled = False

    @precondition(lambda self: self.loader.loading)
    @rule(position=positions)
    def load_finishes(self, position: int) -> None:
        loading = self.loader.loading
        self.loader.finish(loading[position % len(loading)])
        self.settled = False

    @precondition(lambda self: self.loader.loading)
    @rule(position=positions)
    def load_fails(self, position: int) -> None:
        loading = self.loader.loading
        self.loader.fail(loading[position % len(loading)])
        self.settled = False

    @precondition(lambda self: self.open_engines)
    @rule(position=positions)
    def engine_dies(self, position: int) -> None:
        engine = self.open_engines[position % len(self.open_engines)]
        engine.alive = False
        self.killed.append(engine)

    @precondition(lambda self: self.open_engines)
    @rule(position=positions)
    def engine_hangs(self, position: int) -> None:
        engine = self.open_engines[position % len(self.open_engines)]
        engine.hung_at = engine.hung_at or self.clock()
        self.killed.append(engine)

    @precondition(lambda self: self.closing_engines)
    @rule(position=positions)
    def engine_has_closed(self, position: int) -> None:
        self.closing_engines[position % len(self.closing_engines)].may_close.set()
        self.settled = False

    @rule(model=st.sampled_from(list(NEEDS)), pinned=st.booleans())
    def is_pinned(self, model: ModelId, pinned: bool) -> None:
        self.ask(self.pool.pin(model, pinned))

    @rule(model=st.sampled_from(list(NEEDS)), force=st.booleans())
    def is_unloaded(self, model: ModelId, force: bool) -> None:
        if force:
            self.unloaded += [e for e in self.open_engines if e.card.id == model]
        self.ask(self.pool.unload(model, force=force))

    @rule(model=st.sampled_from(list(NEEDS)))
    def is_loaded_if_it_fits(self, model: ModelId) -> None:
        self.clients.append(Preloader(self.pool, model, self.loop))
        self.settled = False

    def ask(self, work: Coroutine[Any, Any, object]) -> None:
        async def quietly() -> None:
            try:
                await work
            except DomainError:
                pass  # refusals are answers, too

        task: asyncio.Task[object] = self.loop.create_task(quietly())
        self.asked.add(task)
        task.add_done_callback(self.asked.discard)
        self.settled = False

    @rule()
    def idle_models_expire(self) -> None:
        self.loop.call_soon(self.pool.expire_idle)
        self.settled = False

    @rule(seconds=st.sampled_from([0.0, 1.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    @rule()
    def loop_turns_once(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))
        self.settled = False

    @invariant()
    def memory_stays_within_the_budget(self) -> None:
        assert self.pool.snapshot().memory_used <= BUDGET
        assert self.loader.bytes_held <= BUDGET

    @invariant()
    def a_model_is_loaded_by_one_load_at_a_time(self) -> None:
        loading = self.loader.loading
        assert len(loading) == len(set(loading))

    @invariant()
    def nobody_loses_a_living_engine(self) -> None:
        held = [engine for client in self.holding if (engine := client.engine)]
        assert not [
            engine
            for engine in self.loader.engines
            if engine in held
            and engine.closes
            and engine not in self.killed
            and engine not in self.unloaded
        ]

    @invariant()
    def the_ledger_has_weights_and_reserves(self) -> None:
        for resident in self.pool.snapshot().residents:
            assert resident.need == NEEDS[resident.id]

    @invariant()
    def the_waiting_room_has_walls(self) -> None:
        """Those who will have a place in the batch of a model that loads stand outside."""
        if self.settled:
            snapshot = self.pool.snapshot()
            unplaced = sum(max(r.waiting - PLACES, 0) for r in snapshot.residents)
            assert snapshot.waiting + unplaced <= MAX_WAITING

    @invariant()
    def leases_are_those_of_the_clients(self) -> None:
        if self.settled:
            gone = self.killed + self.unloaded
            dead = [client for client in self.holding if client.engine in gone]
            most, least = len(self.holding), len(self.holding) - len(dead)
            assert least <= self.pool.snapshot().leases <= most

    @invariant()
    def nobody_overtakes_one_who_waits_for_memory(self) -> None:
        if self.settled:
            for place, client in enumerate(self.clients):
                if client.waits and client.model not in self.resident:
                    assert not [later for later in self.clients[place:] if later.engine]

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Who waits, waits for a load, or behind one whose model does not fit (yet)."""
        if not self.settled:
            return
        snapshot = self.pool.snapshot()
        for_load = sum(resident.waiting for resident in snapshot.residents)
        assert snapshot.waiting + for_load == len(self.waiting)
        if snapshot.waiting:
            head = self.waiting[for_load]
            assert head.model not in self.resident
            if self.closing_engines:
                in_the_way = self.loader.bytes_held
            else:
                kept = (
                    r
                    for r in snapshot.residents
                    if r.leases or r.pinned or r.state is ModelState.LOADING
                )
                in_the_way = sum(resident.need for resident in kept)
            assert in_the_way + NEEDS[head.model] > BUDGET

    def teardown(self) -> None:
        try:
            self.everyone_is_served()
            self.loop.run_until_complete(self.pool.close())
            assert not self.open_engines
            assert not self.unheard
        finally:
            self.loop.close()

    def everyone_is_served(self) -> None:
        for _ in range(2 * len(self.clients) + 2):
            for client in self.holding:
                client.leave()
            for model in self.loader.loading:
                self.loader.finish(model)
            for engine in self.loader.engines:
                engine.may_close.set()
            self.settle()
        assert not self.waiting
        assert all(c.was_answered or c in self.vanished for c in self.clients)
        snapshot = self.pool.snapshot()
        assert (snapshot.leases, snapshot.waiting) == (0, 0)
        assert not any(resident.waiting for resident in snapshot.residents)


class SlowlyClosingPoolMachine(PoolMachine):
    """Evicted and dead engines take their time to give their memory back."""

    slow_to_close = True


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=1000, stateful_step_count=50)
TestPoolOfSlowlyClosingEngines = SlowlyClosingPoolMachine.TestCase
TestPoolOfSlowlyClosingEngines.settings = settings(max_examples=1000, stateful_step_count=50)
