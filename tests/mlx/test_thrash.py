"""Loading and closing again and again leaves nothing behind."""

import itertools
import threading
import time
from pathlib import Path

import mlx.core as mx

from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from domain.chat import ChatCommand, Message, Sampling
from domain.memory import LoadPlan, ModelPolicy
from domain.models import ModelCard, ModelId
from domain.outputs import Piece
from tests.fakes import FakeCatalog
from tests.mlx.test_loading import GEMMA3, LLAMA
from tests.tiny import QWEN3, make_model

ROUNDS = 60
SWITCHES = 100
SLACK = 200_000  # bytes; a model is several times that


def held() -> int:
    return mx.get_active_memory() + mx.get_cache_memory()


def make_cards(folder: Path) -> list[ModelCard]:
    cards = []
    for config in (QWEN3, LLAMA, GEMMA3):
        wide = config | {"hidden_size": 192, "intermediate_size": 512}
        name = str(config["model_type"])
        location = make_model(folder / name, wide, eos=False)
        cards.append(ModelCard(ModelId.parse(name), "", location, 0, 512, 0))
    return cards


async def test_three_models_that_take_turns_leave_nothing_behind(tmp_path: Path) -> None:
    cards = make_cards(tmp_path)
    mx.clear_cache()
    loader = MlxEngineLoader(MlxOptions())
    after: list[int] = []
    threads: list[int] = []
    for card in itertools.islice(itertools.cycle(cards), ROUNDS):
        profile = await loader.profile(card, None)
        engine = await loader.load(card, LoadPlan(profile, 512, 4))
        command = ChatCommand(card.id, (Message.user("hi"),), Sampling(temperature=0, max_tokens=3))
        said = [output async for output in engine.generate(command)]
        assert any(isinstance(output, Piece) for output in said)
        await engine.close()
        after.append(held())
        threads.append(threading.active_count())
    first, last = after[3:30], after[-27:]
    assert max(last) <= max(first) + SLACK
    assert max(threads[-27:]) <= max(threads[3:30]) + 1


async def test_three_models_share_the_room_of_two(tmp_path: Path) -> None:
    """By the pool, whose ledger is compared with what MLX holds, amid each use and after it."""
    cards = make_cards(tmp_path)
    loader = MlxEngineLoader(MlxOptions(max_batch_size=4, max_cache_bytes=0))
    policy = ModelPolicy(context_length=512, concurrency=4)
    needs = [LoadPlan(await loader.profile(c, None), 512, 4).need.total for c in cards]
    budget = sum(needs) - min(needs) + 1
    limits = PoolLimits(budget, slots=4, policy=policy)
    pool = ModelPool(FakeCatalog(*cards), loader, time.monotonic, limits)
    mx.clear_cache()
    before = mx.get_active_memory()
    seen: list[int] = []
    for turn in range(SWITCHES):
        model = cards[turn % len(cards)].id
        command = ChatCommand(model, (Message.user("hi"),), Sampling(temperature=0, max_tokens=3))
        async with pool.lease(model) as engine:
            said = [output async for output in engine.generate(command)]
            assert any(isinstance(output, Piece) for output in said)
            snapshot = pool.snapshot()
            assert snapshot.memory_used <= budget
            seen.append(mx.get_active_memory() - before)
    assert max(seen) <= budget
    assert max(seen[-27:]) <= max(seen[3:30]) + SLACK
    await pool.close()
    assert mx.get_active_memory() - before <= SLACK
