"""The memory policy: who may load, who must go, who waits."""

from hypothesis import given
from hypothesis import strategies as st

from domain.models import ModelId
from domain.residency import Admit, Refuse, Resident, Wait, plan_admission

needs = st.integers(0, 20)
budgets = st.integers(0, 60)


@st.composite
def resident_models(draw: st.DrawFn) -> list[Resident]:
    flags = st.booleans()
    count = draw(st.integers(0, 6))
    return [
        Resident(
            ModelId(f"m{n}"),
            draw(needs),
            float(draw(st.integers(0, 5))),
            leased=draw(flags),
            pinned=draw(flags),
        )
        for n in range(count)
    ]


def named(residents: list[Resident], ids: tuple[ModelId, ...]) -> list[Resident]:
    return [next(r for r in residents if r.id == model) for model in ids]


def held(residents: list[Resident]) -> int:
    return sum(resident.need for resident in residents)


def test_what_fits_is_admitted() -> None:
    assert plan_admission([], 10, 10) == Admit()


def test_what_can_never_fit_is_refused() -> None:
    assert plan_admission([], 11, 10) == Refuse()


def test_pinned_models_take_their_room_for_good() -> None:
    pinned = Resident(ModelId("a"), 4, 0.0, pinned=True)
    assert plan_admission([pinned], 7, 10) == Refuse()


def test_leased_models_take_their_room_for_now() -> None:
    leased = Resident(ModelId("a"), 4, 0.0, leased=True)
    assert plan_admission([leased], 7, 10) == Wait()


def test_the_least_recently_used_goes_first() -> None:
    old, new = Resident(ModelId("old"), 4, 1.0), Resident(ModelId("new"), 4, 2.0)
    assert plan_admission([new, old], 6, 10) == Admit((old.id,))
    assert plan_admission([new, old], 7, 10) == Admit((old.id, new.id))


@given(resident_models(), needs, budgets)
def test_refused_is_what_could_not_load_if_all_leases_ended(
    residents: list[Resident], need: int, budget: int
) -> None:
    pinned = [resident for resident in residents if resident.pinned]
    refused = plan_admission(residents, need, budget) == Refuse()
    assert refused == (held(pinned) + need > budget)


@given(resident_models(), needs, budgets)
def test_waiting_is_for_leases_only(residents: list[Resident], need: int, budget: int) -> None:
    waits = plan_admission(residents, need, budget) == Wait()
    kept = [resident for resident in residents if resident.leased or resident.pinned]
    pinned = [resident for resident in residents if resident.pinned]
    assert waits == (held(pinned) + need <= budget < held(kept) + need)


@given(resident_models(), needs, budgets)
def test_what_is_admitted_fits(residents: list[Resident], need: int, budget: int) -> None:
    plan = plan_admission(residents, need, budget)
    if isinstance(plan, Admit):
        gone = named(residents, plan.evict)
        assert held(residents) - held(gone) + need <= budget


@given(resident_models(), needs, budgets)
def test_only_idle_models_go_and_no_more_than_needed(
    residents: list[Resident], need: int, budget: int
) -> None:
    plan = plan_admission(residents, need, budget)
    if isinstance(plan, Admit) and plan.evict:
        gone = named(residents, plan.evict)
        assert not [resident for resident in gone if resident.leased or resident.pinned]
        assert held(residents) - held(gone[:-1]) + need > budget


@given(resident_models(), needs, budgets)
def test_nobody_goes_before_one_used_less_recently(
    residents: list[Resident], need: int, budget: int
) -> None:
    plan = plan_admission(residents, need, budget)
    if isinstance(plan, Admit):
        used = [resident.last_used for resident in named(residents, plan.evict)]
        idle = sorted(r.last_used for r in residents if not (r.leased or r.pinned))
        assert used == idle[: len(used)]
