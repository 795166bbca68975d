"""The memory policy: who may load, who must go, who waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.memory import CacheLayers, LoadPlan, MemoryProfile
from domain.models import ModelId
from domain.residency import Admit, Fit, Refuse, Resident, Wait, estimate, plan_admission

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


def planned(weights: int, context: int = 256, concurrency: int = 1) -> LoadPlan:
    profile = MemoryProfile(weights, (CacheLayers(bytes_per_token=1_000),), prefill=5_000)
    return LoadPlan(profile, context, concurrency)


GB = 10**9
ME = ModelId("me")


@pytest.mark.parametrize(
    ("residents", "fit", "evict"),
    [
        ([], Fit.NOW, ()),
        ([Resident(ModelId("a"), 9 * GB, 1.0)], Fit.AFTER_EVICTIONS, (ModelId("a"),)),
        ([Resident(ModelId("a"), 9 * GB, 1.0, leased=True)], Fit.AFTER_REQUESTS, ()),
        ([Resident(ModelId("a"), 9 * GB, 1.0, pinned=True)], Fit.NEVER, ()),
        ([Resident(ME, 9 * GB, 1.0, leased=True)], Fit.NOW, ()),
    ],
)
def test_an_estimate_tells_whether_it_would_fit(
    residents: list[Resident], fit: Fit, evict: tuple[ModelId, ...]
) -> None:
    told = estimate(ME, planned(5 * GB), 256, residents, 10 * GB)
    assert (told.fit, told.evict) == (fit, evict)


def test_an_estimate_has_the_numbers_in_words() -> None:
    residents = [
        Resident(ModelId("idle"), 2 * GB, 1.0),
        Resident(ModelId("busy"), 3 * GB, 1.0, leased=True),
        Resident(ModelId("kept"), GB, 1.0, pinned=True),
    ]
    told = estimate(ME, planned(6 * GB, 256_000, 4), 256_000, residents, 8 * GB)
    assert (told.in_use, told.freeable, told.pinned) == (6 * GB, 2 * GB, GB)
    for words in (
        "`me` needs 7.02 GB",
        "6.00 GB for its weights",
        "1.02 GB for 4 requests of 256000 tokens",
        "The budget is 8.00 GB, of which 6.00 GB is in use and 2.00 GB could be freed",
        "raise `memory_budget_gb` (by ",
        "unpin a model (1.00 GB is pinned)",
        "lower `kv_concurrency` to 3",
        "lower `context_length` to 249856",
    ):
        assert words in told.text
    assert planned(6 * GB, 256_000, 3).need.total <= 7 * GB
    assert planned(6 * GB, 249_856, 4).need.total <= 7 * GB


def test_who_can_never_fit_is_told_what_would() -> None:
    told = estimate(ME, planned(5 * GB, 8_000_000), 8_000_000, [], 10 * GB)
    assert told.fit is Fit.NEVER
    assert f"lower `context_length` to {told.longest_context}." in told.text
    assert planned(5 * GB, told.longest_context).need.total <= 10 * GB
    both = estimate(ME, planned(9 * GB, 2_000_000, 5_000), 2_000_000, [], 10 * GB)
    assert (
        f"lower `kv_concurrency` to 1 and `context_length` to {both.longest_context}." in both.text
    )
    prefill = LoadPlan(MemoryProfile(5 * GB, prefill=6 * GB), 256, 1)
    assert "lower `prefill_step_size`" in estimate(ME, prefill, 256, [], 10 * GB).text
    hopeless = estimate(ME, planned(11 * GB), 256, [], 10 * GB)
    assert "choose a smaller or more quantised model" in hopeless.text
    assert "context_length" not in hopeless.text


@given(resident_models(), needs, budgets)
def test_an_estimate_says_what_admission_will_do(
    residents: list[Resident], need: int, budget: int
) -> None:
    told = estimate(ME, LoadPlan(MemoryProfile(need), 1, 1), 1, residents, budget)
    match plan_admission(residents, need, budget):
        case Admit(evict):
            assert told.fit is (Fit.AFTER_EVICTIONS if evict else Fit.NOW)
            assert told.evict == evict
        case Wait():
            assert told.fit is Fit.AFTER_REQUESTS
        case Refuse():
            assert told.fit is Fit.NEVER
