"""Rows that keep their places, with kernels in plain MLX in place of CUDA's: the answers are those
of mlx-lm's own batches, whoever joins and leaves.
"""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import base
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache
from mlx_lm.utils import load as load_model

from adapters.mlx.batched_kv import merge
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.mlx.rows import Rows
from adapters.mlx.slots import SlottedRows, Span
from adapters.mlx.trial import slotted_rows
from domain.chat import ChatCommand, Message, Sampling, Text
from domain.models import ModelCard, ModelId
from domain.outputs import Piece
from tests.plans import plan_for

TINY = ModelId.parse("test/tiny")


class PlainKernels:
    """What the kernels compute, in new arrays."""

    def attend(
        self,
        queries: mx.array,
        new: Sequence[mx.array],
        kept: Sequence[mx.array],
        ends: mx.array,
        scale: float,
    ) -> tuple[mx.array, mx.array, mx.array]:
        at = mx.arange(kept[0].shape[2])[None, None, :, None]
        end = ends[:, None, None, None]
        keys, values = (mx.where(at == end, *pair) for pair in zip(new, kept, strict=True))
        seen = (at <= end).swapaxes(2, 3)
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=seen)
        return out, keys, values

    def put(
        self,
        kept: Sequence[mx.array],
        rows: Sequence[mx.array],
        where: Sequence[Span],
    ) -> tuple[mx.array, mx.array, mx.array]:
        keys, values = (mx.array(array) for array in kept)
        for row, (slot, begin, end) in enumerate(where):
            keys[slot, :, : end - begin] = rows[0][row, :, begin:end]
            values[slot, :, : end - begin] = rows[1][row, :, begin:end]
        return keys, values, keys


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> Any:
    return load_model(str(tiny_model))[0]


def computed(network: Any, prompt: list[int]) -> list[KVCache]:
    caches = make_prompt_cache(network)
    if prompt:
        network(mx.array([prompt]), cache=caches)
    return caches


def batched(rows: list[list[KVCache]]) -> list[Any]:
    return [merge(layers) for layers in zip(*rows, strict=True)]


def slotted(network: Any) -> SlottedRows:
    rows = slotted_rows(network, make_prompt_cache(network), PlainKernels())
    assert rows is not None
    return rows


def near(one: mx.array, other: mx.array) -> bool:
    return bool(mx.allclose(one, other, rtol=1e-3, atol=1e-3))


def test_steps_are_those_of_mlx_lms_batches_whoever_comes_and_goes(network: Any) -> None:
    rnd = random.Random(5)  # noqa: S311 - no secret
    plain, own, count = Rows(network), slotted(network), 0
    for _ in range(40):
        if count < 11 and (not count or rnd.random() < 0.5):
            prompts = [
                [rnd.randrange(250) for _ in range(rnd.choice((0, 1, 9, 70, 250)))]
                for _ in range(rnd.randint(1, 3))
            ]
            for rows in (plain, own):
                rows.join(batched([computed(network, prompt) for prompt in prompts]))
            count += len(prompts)
        elif rnd.random() < 0.6:
            stay = sorted(rnd.sample(range(count), rnd.randrange(count)))
            plain.stay(stay)
            own.stay(stay)
            count = len(stay)
        for _ in range(3 if count else 0):
            tokens = mx.array([[rnd.randrange(250)] for _ in range(count)], dtype=mx.uint32)
            expected, said = plain.forward(tokens), own.forward(tokens)
            assert said.shape == expected.shape
            assert near(said, expected)
    plain.stay([])
    own.stay([])
    assert own.taken == []


def test_a_row_is_copied_with_all_its_tokens_and_none_that_come_later(network: Any) -> None:
    rows, prompt = slotted(network), list(range(40))
    rows.join(batched([computed(network, prompt), computed(network, prompt[:7])]))
    rows.forward(mx.array([[50], [51]], dtype=mx.uint32))
    copied = rows.extract(1)
    rows.forward(mx.array([[52], [53]], dtype=mx.uint32))
    expected = computed(network, [*prompt[:7], 51])
    for cache, other in zip(copied, expected, strict=True):
        assert cache.offset == other.offset == 8
        for name in ("keys", "values"):
            assert near(getattr(cache, name), getattr(other, name)[..., :8, :])


def test_room_that_is_not_needed_any_more_is_given_back(network: Any) -> None:
    rows = slotted(network)
    rows.join(batched([computed(network, [1] * 300), *[computed(network, [2] * 9)] * 8]))
    most = sum(array.nbytes for array in rows.taken)
    rows.stay([3, 5])
    for token in range(20):
        rows.forward(mx.array([[token], [token]], dtype=mx.uint32))
    assert sum(array.nbytes for array in rows.taken) == most / (16 / 2) / (512 / 256)


def test_models_that_ask_for_more_keep_mlx_lms_way(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = len(make_prompt_cache(network))
    windows = [RotatingKVCache(max_size=64) for _ in range(layers)]
    assert slotted_rows(network, windows, PlainKernels()) is None

    class Forgets(PlainKernels):
        def put(self, kept: Any, *_: Any) -> Any:
            return *kept, kept[0]

    assert slotted_rows(network, make_prompt_cache(network), Forgets()) is None
    module = type(network.layers[0].self_attn).__module__

    def masked(*args: Any, **kwargs: Any) -> Any:
        return base.scaled_dot_product_attention(*args, **(kwargs | {"mask": mx.array([True])}))

    monkeypatch.setattr(f"{module}.scaled_dot_product_attention", masked)
    assert slotted_rows(network, make_prompt_cache(network), PlainKernels()) is None


def chat(text: str) -> ChatCommand:
    sampling = Sampling(max_tokens=12, temperature=0.0)
    return ChatCommand(TINY, (Message("user", (Text(text),)),), sampling)


async def answers(folder: Path) -> list[str]:
    card = ModelCard(TINY, "", folder, 400_000, 512, 0)
    engine = await MlxEngineLoader(MlxOptions()).load(card, plan_for(card))

    async def answer(text: str) -> str:
        said = [output async for output in engine.generate(chat(text))]
        return "".join(output.text for output in said if isinstance(output, Piece))

    texts = [f"{n} " * (1 + 11 * n) for n in range(7)]
    said = await asyncio.gather(*map(answer, texts))
    again = await asyncio.gather(*map(answer, texts))  # what was kept is right as well
    assert again == said
    await engine.close()
    return said


async def test_answers_are_the_same(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = await answers(tiny_model)
    monkeypatch.setattr("adapters.mlx.gpu.launch_bound", lambda: True)
    monkeypatch.setattr("adapters.mlx.gpu.prefill_width", lambda: 8)
    monkeypatch.setattr("adapters.mlx.gpu.prefill_multiple", lambda: 64)
    monkeypatch.setattr("adapters.mlx.trial.CudaKernels", PlainKernels)
    assert await answers(tiny_model) == expected
