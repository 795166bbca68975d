"""Answers from kept states are those without them, whatever the caches of a model are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import (
    ArraysCache,
    BatchKVCache,
    ChunkedKVCache,
    KVCache,
    RotatingKVCache,
)

from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.snapshot import always_trimmable
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

ROOM = 2**30
PROMPT = prompt(1, 90)  # far longer than windows and chunks, which are of 16 tokens
STOPS = [10, 40, 89]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with uncompiled():
        yield Model.make(tmp_path_factory.mktemp("model"), kind)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.make(tmp_path_factory.mktemp("model"), "plain")


def test_answers_are_those_without_a_cache(model: Model, kind: str) -> None:
    cache = PrefixCache(ROOM)
    whole = have_turn(model, cache, PROMPT, STOPS)
    prompts = {
        "the same": (PROMPT, 89, 89),
        "the second turn": (whole + prompt(2, 30), len(whole), len(whole)),
        "diverges in the middle": (PROMPT[:50] + prompt(3, 30), 50, 40),
        "diverges early": (PROMPT[:12] + prompt(3, 30), 12, 10),
        "shorter": (PROMPT[:60], 59, 40),
        "ends where a state was kept": (PROMPT[:40], 39, 10),
        "goes on where a state was kept": (PROMPT[:41], 40, 40),
        "one token": (PROMPT[:1], 0, 0),
    }
    for name, (tokens, trimmed, exact) in prompts.items():
        count, said = served(model, cache, tokens)
        assert said == model.answer(tokens), name
        assert count == (trimmed if kind in TRIMMABLE else exact), name


def test_it_is_known_whose_states_must_be_kept_on_the_way(model: Model, kind: str) -> None:
    assert always_trimmable(model.caches()) == (kind in TRIMMABLE)


def test_states_short_of_a_window_can_be_cut(model: Model, kind: str) -> None:
    cache = PrefixCache(ROOM)
    caches = model.caches()
    model.read(caches, PROMPT[:9])
    model.read(caches, PROMPT[9:10])  # a single token is written in place, into room for many
    assert cache.keep(SCOPE, PROMPT[:10], caches)
    tokens = PROMPT[:7] + prompt(5, 40)
    count, said = served(model, cache, tokens, 4)
    assert said == model.answer(tokens, 4)
    assert count == (7 if kind in {*TRIMMABLE, "rotating", "chunked"} else 0)


def test_a_state_is_unharmed_by_those_who_go_on_from_it(model: Model) -> None:
    cache = PrefixCache(ROOM)
    caches = model.caches()
    model.read(caches, PROMPT[:40])
    cache.keep(SCOPE, PROMPT[:40], caches)
    tokens = PROMPT[:41]
    before = state(cache, tokens)
    for seed in range(3):
        longer = tokens + prompt(seed, 5)
        assert served(model, cache, longer, 4)[1] == model.answer(longer, 4)
    assert state(cache, tokens) == before


def test_a_state_is_unharmed_by_the_one_it_was_kept_of(model: Model) -> None:
    cache = PrefixCache(ROOM)
    caches = model.caches()
    model.read(caches, PROMPT[:40])
    cache.keep(SCOPE, PROMPT[:40], caches)
    before = state(cache, PROMPT[:41])
    model.go_on(caches, PROMPT[40:], 4)
    assert state(cache, PROMPT[:41]) == before


def test_a_state_is_unharmed_by_arrays_changed_in_place() -> None:
    cache = PrefixCache(ROOM)
    layer = ArraysCache(1)
    layer[0] = mx.zeros((1, 4))
    cache.keep(SCOPE, [1, 2], [layer])
    layer.cache[0] += 1
    layer.cache[0][:, 2] = 5
    for _ in range(2):
        found = cache.find(SCOPE, [1, 2, 3])
        assert found is not None
        assert found[1][0][0].tolist() == [[0, 0, 0, 0]]
        found[1][0].cache[0] += 1
        found[1][0].cache[0][:, 1] = 7


def state(cache: PrefixCache, tokens: list[int]) -> list[tuple[str, Any]]:
    found = cache.find(SCOPE, tokens)
    assert found is not None
    flat: Any = tree_flatten([layer.state for layer in found[1]])
    return [(name, one.tolist() if isinstance(one, mx.array) else one) for name, one in flat]


def test_rows_of_a_batch_may_come_from_the_cache_and_go_there(model: Model, kind: str) -> None:
    if kind == "chunked":
        assert not hasattr(ChunkedKVCache, "merge")  # nothing to test until mlx-lm can batch them
        return
    cache = PrefixCache(ROOM)
    have_turn(model, cache, PROMPT, STOPS)
    prompts = [PROMPT, PROMPT[:41] + prompt(6, 9), prompt(7, 25)]
    rows = []
    for tokens in prompts:
        count, caches = cache.find(SCOPE, tokens) or (0, model.caches())
        if tokens[count:-1]:
            model.read(caches, tokens[count:-1])
        rows.append(caches)
    batch = [layers[0].merge(list(layers)) for layers in zip(*rows, strict=True)]
    said = [[tokens[-1]] for tokens in prompts]
    for _ in range(8):
        logits = model.network(mx.array([row[-1:] for row in said]), cache=batch)[:, -1]
        for row, token in zip(said, mx.argmax(logits, axis=-1).tolist(), strict=True):
            row.append(token)
    assert [row[1:] for row in said] == [model.answer(tokens, 8) for tokens in prompts]
    for row, tokens in enumerate(prompts):  # and what they come to hold may be kept
        whole = tokens + said[row][1:-1]
        assert cache.keep(SCOPE, whole, [layer.extract(row) for layer in batch])
        longer = [*whole, *prompt(8, 5)]
        assert served(model, cache, longer, 4) == (len(whole), model.answer(longer, 4))


def test_scopes_never_cross(plain: Model) -> None:
    cache = PrefixCache(ROOM)
    caches = plain.caches()
    plain.read(caches, PROMPT)
    cache.keep("one key", PROMPT, caches)
    assert cache.find("another key", PROMPT) is None
    assert cache.find("", PROMPT) is None
    assert cache.find("one key", PROMPT) is not None


def test_the_budget_is_never_exceeded_and_the_least_used_goes_first(plain: Model) -> None:
    caches = plain.caches()
    plain.read(caches, PROMPT)
    one = PrefixCache(ROOM)
    one.keep(SCOPE, PROMPT, caches)
    size = one.bytes_held
    cache = PrefixCache(3 * size)
    for n in range(6):
        cache.keep(str(n), PROMPT, caches)
        assert cache.bytes_held <= 3 * size
        assert cache.find("0", PROMPT), n
    kept = {n for n in range(6) if cache.find(str(n), PROMPT)}
    assert kept == {0, 4, 5}
    cache.shrink(size)
    assert cache.bytes_held == size
    assert not PrefixCache(size - 1).keep(SCOPE, PROMPT, caches)
    cache.clear()
    assert cache.bytes_held == 0 and cache.find("5", PROMPT) is None


def test_bytes_are_counted_truly_and_a_batch_is_not_kept_alive(plain: Model) -> None:
    rows, heads, tokens, width = 16, 2, 300, 64
    batch = BatchKVCache([0] * rows)
    batch.update_and_fetch(*mx.random.normal((2, rows, heads, tokens, width)))
    view = KVCache()
    view.keys, view.values, view.offset = batch.keys[3:4], batch.values[3:4], tokens
    cache = PrefixCache(ROOM)
    mx.eval(view.keys, view.values)
    cache.keep(SCOPE, list(range(tokens)), [view])
    mx.synchronize()
    with_batch = mx.get_active_memory()
    del batch
    view.keys = view.values = None
    freed = with_batch - mx.get_active_memory()
    assert freed >= 2 * rows * heads * 512 * width * 4
    assert cache.bytes_held == 2 * heads * tokens * width * 4 + 4 * tokens
    before = mx.get_active_memory()
    cache.clear()
    assert before - mx.get_active_memory() >= 2 * heads * tokens * width * 4


def test_finding_copies_no_memory(plain: Model) -> None:
    cache = PrefixCache(ROOM)
    caches = plain.caches()
    plain.read(caches, PROMPT)
    cache.keep(SCOPE, PROMPT, caches)
    mx.synchronize()
    before = mx.get_active_memory()
    found = [cache.find(SCOPE, PROMPT) for _ in range(10)]
    mx.eval([layer.state for one in found if one for layer in one[1]])
    assert mx.get_active_memory() - before < cache.bytes_held / 2


def test_what_is_not_known_to_be_kept_right_is_not_kept(plain: Model) -> None:
    class Odd(KVCache):
        pass

    cache = PrefixCache(ROOM)
    caches = plain.caches()
    plain.read(caches, PROMPT)
    keeps_first = RotatingKVCache(max_size=16, keep=4)
    batch = KVCache.merge([caches[0], caches[0]])
    two_rows = ArraysCache(1)
    two_rows[0] = mx.zeros((2, 3))
    padded = ArraysCache(1, left_padding=[3])
    for odd in (Odd(), keeps_first, batch, two_rows, padded):
        assert not cache.keep(SCOPE, PROMPT, [*caches, odd])
    assert not cache.keep(SCOPE, PROMPT[:-1], caches)
    assert not cache.keep(SCOPE, PROMPT, plain.caches())
    assert not cache.keep(SCOPE, [], caches)
    assert cache.bytes_held == 0


def test_what_was_served_is_counted(plain: Model) -> None:
    cache = PrefixCache(ROOM)
    have_turn(plain, cache, PROMPT, [])
    served(plain, cache, PROMPT)
    served(plain, cache, prompt(8, 20))
    stats = cache.stats
    assert (stats.queries, stats.hits, stats.cached_tokens) == (2, 1, 89)
    assert (stats.entries, stats.bytes_held) == (1, cache.bytes_held)


def test_a_state_that_another_covers_is_not_kept_twice(plain: Model, tmp_path: Path) -> None:
    cache = PrefixCache(ROOM)
    whole = have_turn(plain, cache, PROMPT, STOPS)
    held = cache.bytes_held
    have_turn(plain, cache, PROMPT, STOPS)
    assert cache.bytes_held == held and cache.stats.entries == 1
    found = cache.find(SCOPE, [*whole, 1])
    assert found is not None and found[0] == len(whole)
