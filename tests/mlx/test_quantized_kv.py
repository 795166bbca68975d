"""A batch with quantised KV caches says what each request says alone; what can't is refused."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache
from mlx_lm.utils import load_model

from adapters.mlx.quantized_kv import (
    BatchQuantizedKVCache,
    KvQuantization,
    QuantizedRow,
    plan_quantization,
    quantize_caches,
)
from domain.errors import InvalidRequest
from tests.mlx.test_loading import GEMMA3, LLAMA, MAMBA
from tests.mlx.turns import prompt
from tests.tiny import QWEN3, make_model

LLAMA_OF_32 = LLAMA | {"head_dim": 32, "num_key_value_heads": 4}
GPT_OSS = QWEN3 | {
    "model_type": "gpt_oss",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
}
MLA = {
    "model_type": "deepseek_v3",
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "first_k_dense_replace": 2,
    "kv_lora_rank": 64,
    "q_lora_rank": None,
    "qk_rope_head_dim": 32,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
}

PREFILL = 16  # tokens a slice, so that prompts take several
# On a CPU they agree to the last bits; elsewhere kernels differ with the width of the batch.
# Without quantisation these models' log-probabilities are off by more than 0.5 at 8 bits.
TOLERANCE = 0.05


def network_of(folder: Path, config: dict[str, Any] = QWEN3) -> Any:
    return load_model(make_model(folder / "model", config))[0]


def forward(network: Any, caches: list[Any], tokens: list[int]) -> mx.array:
    """Log-probabilities after the last token."""
    for start in range(0, len(tokens), PREFILL):
        logits = network(mx.array([tokens[start : start + PREFILL]]), cache=caches)[0, -1]
    return logits - mx.logsumexp(logits)


def alone(network: Any, plan: KvQuantization) -> list[Any]:
    """Caches of one request as mlx-lm itself quantises them."""
    return [
        QuantizedKVCache(plan.group_size, plan.bits) if type(cache) is KVCache else cache
        for cache in make_prompt_cache(network)
    ]


@dataclass
class Generated:
    """mlx-lm's BatchGenerator, and all that it said."""

    network: Any
    plan: KvQuantization
    prompts: dict[int, list[int]] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[mx.array]] = field(default_factory=dict)
    finals: dict[int, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = BatchGenerator(
            self.network, prefill_step_size=PREFILL, prefill_batch_size=3, completion_batch_size=8
        )

    def insert(
        self,
        tokens: list[int],
        max_tokens: int,
        before: list[int] | None = None,
        caches: list[Any] | None = None,
    ) -> int:
        (uid,) = self.generator.insert(
            [tokens],
            max_tokens=[max_tokens],
            caches=[caches or self.plan.make_caches(self.network)],
            all_tokens=[before or []],
        )
        self.prompts[uid] = [*(before or []), *tokens]
        return int(uid)

    def steps(self, most: int = 1000) -> Iterator[list[Any]]:
        """Prompt progress, step by step, until all is said."""
        for _ in range(most):
            prompts, responses = self.generator.next()
            for response in responses:
                self.tokens.setdefault(response.uid, []).append(response.token)
                self.logprobs.setdefault(response.uid, []).append(response.logprobs)
                if response.prompt_cache:
                    self.finals[response.uid] = response.prompt_cache
            if not prompts and not responses:
                return
            yield prompts

    def run(self, most: int = 1000) -> None:
        for _ in self.steps(most):
            pass

    def check(self, uid: int) -> None:
        """Every token is the likeliest one that the request alone would have said."""
        caches = alone(self.network, self.plan)
        said, tokens = self.tokens[uid], self.prompts[uid]
        forward(self.network, caches, tokens[:-1]) if len(tokens) > 1 else None
        for last, token, logprobs in zip(
            [tokens[-1], *said], said, self.logprobs[uid], strict=False
        ):
            expected = forward(self.network, caches, [last])
            assert mx.abs(expected - logprobs).max().item() < TOLERANCE
            assert expected[token] > expected.max() - TOLERANCE


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("config", [QWEN3, LLAMA_OF_32, GEMMA3], ids=lambda c: c["model_type"])
def test_a_batch_says_what_each_says_alone(
    tmp_path: Path, config: dict[str, Any], bits: int
) -> None:
    """Prompts of unequal lengths, in several slices; some join while others decode and leave."""
    network = network_of(tmp_path, config)
    plan = plan_quantization(network, bits)
    generated = Generated(network, plan)
    first = [generated.insert(prompt(n, n), max_tokens=5 + n) for n in (40, 1, 23)]
    generated.run(6)
    then = [generated.insert(prompt(n, n), max_tokens=30) for n in (70, 2)]
    generated.run()
    for uid in first + then:
        generated.check(uid)
    assert [len(generated.tokens[uid]) for uid in first + then] == [45, 6, 28, 30, 30]


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_models_keep_scales_of_theirs(tmp_path: Path, dtype: mx.Dtype) -> None:
    network = network_of(tmp_path, GEMMA3)
    network.set_dtype(dtype)
    generated = Generated(network, plan_quantization(network, 8))
    uids = [generated.insert(prompt(n, n), max_tokens=12) for n in (20, 3)]
    generated.run()
    assert {a.dtype for a in generated.finals[uids[0]][1].keys} == {mx.uint32, dtype}
    assert all(mx.isfinite(mx.stack(generated.logprobs[uid])).all().item() for uid in uids)


def test_removal_midway_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    network = network_of(tmp_path)
    generated = Generated(network, plan_quantization(network, 8))
    uids = [generated.insert(prompt(n, n), max_tokens=20) for n in (9, 100, 30, 5)]
    generated.run(4)  # the first and the third decode; the second is being prefilled
    generated.generator.remove([uids[0], uids[1]])
    said = len(generated.tokens[uids[0]])
    assert uids[1] not in generated.tokens
    generated.run()
    assert len(generated.tokens[uids[0]]) == said
    for uid in uids[2:]:
        assert len(generated.tokens[uid]) == 20
        generated.check(uid)


@pytest.mark.parametrize("config", [QWEN3, GEMMA3], ids=lambda c: c["model_type"])
def test_siblings_begin_with_a_copy_of_the_state(tmp_path: Path, config: dict[str, Any]) -> None:
    network = network_of(tmp_path, config)
    generated = Generated(network, plan_quantization(network, 4))
    tokens = prompt(1, 50)
    other = generated.insert(prompt(2, 3), max_tokens=40)
    leader = generated.insert(tokens, max_tokens=10)
    state = None
    for progress in generated.steps():
        for one in progress:
            if one.uid == leader and one.end_of_segment and state is None:
                state = generated.generator.extract_cache([leader])[leader][0]
                siblings = [
                    generated.insert(tokens[-1:], 10, tokens[:-1], copy.deepcopy(state))
                    for _ in range(2)
                ]
    for uid in [other, leader, *siblings]:
        generated.check(uid)
    assert generated.tokens[siblings[0]] == generated.tokens[leader]
    assert state is not None
    assert next(c for c in state if isinstance(c, QuantizedRow)).size() == 49  # not moved on


def test_a_finished_request_leaves_a_cache_to_go_on_with(tmp_path: Path) -> None:
    network = network_of(tmp_path)
    plan = plan_quantization(network, 8)
    generated = Generated(network, plan)
    uid = generated.insert(prompt(1, 20), max_tokens=6)
    generated.insert(prompt(2, 40), max_tokens=30)
    generated.run()
    before, final = generated.prompts[uid] + generated.tokens[uid], generated.finals[uid]
    assert {cache.size() for cache in final} == {len(before)}
    later = Generated(network, plan)
    uids = [later.insert(prompt(3, 4), 8, before, final), later.insert(prompt(4, 9), 8)]
    later.run()
    for uid in uids:
        later.check(uid)


# --- the batch against a list of rows -------------------------------------------------------

HEADS, KEY_WIDTH, VALUE_WIDTH = 2, 64, 32


@dataclass
class Rows:
    """A batch, and what it has to hold: for each row its tokens' keys and values."""

    bits: int
    batch: BatchQuantizedKVCache
    expected: list[mx.array]  # [head, token, key and value]

    @classmethod
    def empty(cls, count: int, bits: int) -> "Rows":
        rows = [QuantizedRow(32, bits) for _ in range(count)]
        nothing = mx.zeros((HEADS, 0, KEY_WIDTH + VALUE_WIDTH))
        return cls(bits, QuantizedRow.merge(rows), [nothing] * count)

    def feed(self, lengths: list[int], slice_size: int) -> None:
        """As PromptProcessingBatch does."""
        longest = max(lengths)
        padding = [longest - length for length in lengths]
        shape = (len(lengths), HEADS, longest, KEY_WIDTH + VALUE_WIDTH)
        fresh = mx.random.normal(shape)
        if max(padding):
            self.batch.prepare(lengths=lengths, right_padding=padding)
        for start in range(0, longest, slice_size):
            part = fresh[:, :, start : start + slice_size]
            self.batch.update_and_fetch(part[..., :KEY_WIDTH], part[..., KEY_WIDTH:])
        self.batch.finalize()
        self.expected = [
            mx.concatenate([row, fresh[n, :, :length]], axis=1)
            for n, (row, length) in enumerate(zip(self.expected, lengths, strict=True))
        ]

    def check(self) -> None:
        lengths = [row.shape[1] for row in self.expected]
        assert self.batch.offset.tolist() == lengths
        assert (self.batch._idx - self.batch.left_padding).tolist() == lengths
        assert self.batch.empty() or self.batch.keys[0].shape[2] >= self.batch.size()
        for n, row in enumerate(self.expected):
            self.check_row(self.batch.extract(n), row)

    def check_row(self, row: QuantizedRow, expected: mx.array) -> None:
        assert row.size() == expected.shape[1]
        if row.size():
            for held, whole in (
                (row.keys, expected[None, ..., :KEY_WIDTH]),
                (row.values, expected[None, ..., KEY_WIDTH:]),
            ):
                quantised = mx.quantize(whole, group_size=32, bits=self.bits)
                for one, other in zip(held, quantised, strict=True):
                    assert mx.array_equal(one, other)


@given(st.data(), st.sampled_from([4, 8]))
def test_whatever_is_done_every_row_keeps_its_own(data: st.DataObject, bits: int) -> None:
    # Steps of a few tokens, so that buffers grow, have slack and have none.
    with mock.patch.object(BatchQuantizedKVCache, "step", 4):
        rows = Rows.empty(data.draw(st.integers(1, 3)), bits)
        for _ in range(data.draw(st.integers(1, 8))):
            act = data.draw(st.sampled_from([feed, decode, keep, join, remerge, trim, duplicate]))
            act(rows, data)
            rows.check()


def feed(rows: Rows, data: st.DataObject) -> None:
    count = len(rows.expected)
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    rows.feed(lengths, data.draw(st.integers(1, 9)))


def decode(rows: Rows, data: st.DataObject) -> None:
    rows.feed([1] * len(rows.expected), 1)


def keep(rows: Rows, data: st.DataObject) -> None:
    some = st.sets(st.integers(0, len(rows.expected) - 1), min_size=1)
    kept = sorted(data.draw(some))
    rows.batch.filter(kept)
    rows.expected = [rows.expected[n] for n in kept]
    assert rows.batch.empty() or rows.batch.left_padding.min().item() == 0


def join(rows: Rows, data: st.DataObject) -> None:
    other = Rows.empty(data.draw(st.integers(1, 2)), rows.bits)
    if data.draw(st.booleans()):
        feed(other, data)
    rows.batch.extend(other.batch)
    rows.expected += other.expected
    other.check()


def remerge(rows: Rows, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows.expected))))
    parts = [rows.batch.extract(n) for n in order]
    rows.batch = QuantizedRow.merge(parts)
    rows.expected = [rows.expected[n] for n in order]
    before = list(rows.expected)
    decode(rows, data)
    for part, row in zip(parts, before, strict=True):
        rows.check_row(part, row)  # the batch has copies


def trim(rows: Rows, data: st.DataObject) -> None:
    shortest = min(row.shape[1] for row in rows.expected)
    count = data.draw(st.integers(0, shortest))
    assert rows.batch.is_trimmable() and rows.batch.trim(count) == count
    rows.expected = [row[:, : row.shape[1] - count] for row in rows.expected]


def duplicate(rows: Rows, data: st.DataObject) -> None:
    copied = Rows(rows.bits, copy.deepcopy(rows.batch), list(rows.expected))
    decode(copied, data)
    copied.check()


@given(
    st.sampled_from([(4, 2), (2, 2), (8, 1)]),
    st.sampled_from([4, 8]),
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_attention_looks_past_the_padding(
    heads: tuple[int, int], bits: int, lengths: list[int], steps: int
) -> None:
    """Against each row's own dequantised keys and values, with and without shared KV heads."""
    queries_of, keys_of = heads
    batch = BatchQuantizedKVCache.merge([QuantizedRow(32, bits) for _ in lengths])
    longest = max(lengths)
    batch.prepare(lengths=lengths, right_padding=[longest - length for length in lengths])
    batch.update_and_fetch(*mx.random.normal((2, len(lengths), keys_of, longest, 32)) * 3)
    batch.finalize()
    mask = batch.make_mask(steps)
    queries = mx.random.normal((len(lengths), queries_of, steps, 32))
    keys, values = batch.update_and_fetch(
        *mx.random.normal((2, len(lengths), keys_of, steps, 32)) * 3
    )
    # It scales the queries where they are.
    out = scaled_dot_product_attention(mx.array(queries), keys, values, batch, 0.2, mask)
    for n in range(len(lengths)):
        row = batch.extract(n)
        whole = [mx.dequantize(*a, group_size=32, bits=bits) for a in (row.keys, row.values)]
        expected = mx.fast.scaled_dot_product_attention(
            queries[n : n + 1], *whole, scale=0.2, mask="causal"
        )
        assert mx.allclose(out[n : n + 1], expected, atol=1e-3)


# --- what is stored -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "group_size", "share"),
    [(8, 64, 0.53125), (8, 32, 0.5625), (4, 64, 0.28125), (4, 32, 0.3125)],
)
def test_it_takes_the_memory_that_the_bits_promise(
    bits: int, group_size: int, share: float
) -> None:
    tokens = mx.random.normal((2, 3, 300, 128)).astype(mx.bfloat16)
    rows = [KVCache(), KVCache()]
    plain = KVCache.merge(rows)
    batch = QuantizedRow.merge(quantize_caches(rows, bits, group_size))
    assert batch.nbytes == 0
    plain.update_and_fetch(tokens, tokens)
    batch.update_and_fetch(tokens, tokens)
    assert batch.nbytes == share * plain.nbytes
    assert QuantizedRow(group_size, bits).nbytes == 0
    assert batch.extract(0).nbytes == share * 2 * tokens[0].nbytes


def test_room_that_nothing_is_in_is_not_carried_along() -> None:
    rows = [QuantizedRow(32, 8) for _ in range(2)]
    for row, length in zip(rows, (250, 10), strict=True):
        row.update_and_fetch(*mx.zeros((2, 1, 1, length, 32)))
    batch = QuantizedRow.merge(rows)
    assert batch.keys[0].shape[2] == 250
    for _ in range(7):
        batch.update_and_fetch(*mx.zeros((2, 2, 1, 1, 32)))
    assert batch.keys[0].shape[2] == 512
    batch.trim(2)
    batch.update_and_fetch(*mx.zeros((2, 2, 1, 300, 32)))
    assert batch.keys[0].shape[2] == 768


def test_its_state_can_be_put_back() -> None:
    rows = Rows.empty(2, 8)
    rows.feed([3, 5], 8)
    rows.batch = BatchQuantizedKVCache.from_state(rows.batch.state)
    rows.check()
    rows.feed([2, 2], 8)
    rows.check()


def test_only_plain_caches_are_replaced(tmp_path: Path) -> None:
    network = network_of(tmp_path, GEMMA3)
    before = make_prompt_cache(network)
    names = [type(cache).__name__ for cache in quantize_caches(before, 8)]
    assert names == ["RotatingKVCache", "QuantizedRow"]


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("evaluate", [True, False])
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MAMBA, "No layer of this model has a KV cache that could be quantised"),
        (LLAMA, "multiple of 32 can be quantised; this model has 16,"),
        (GPT_OSS, "can't work with a quantised KV cache.* sinks"),
        (MLA, "can't work with a quantised KV cache, so"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_what_cannot_be_quantised_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str, evaluate: bool
) -> None:
    with pytest.raises(InvalidRequest, match=words) as refusal:
        plan_quantization(network_of(tmp_path, config), 8, evaluate=evaluate)
    assert refusal.value.param == "kv_bits"


@pytest.mark.parametrize(("head_dim", "group_size"), [(32, 32), (64, 64), (96, 32), (128, 64)])
def test_the_group_size_is_the_largest_that_fits(
    tmp_path: Path, head_dim: int, group_size: int
) -> None:
    network = network_of(tmp_path, QWEN3 | {"head_dim": head_dim})
    assert plan_quantization(network, 4) == KvQuantization(4, group_size)


def test_a_fault_of_the_model_is_not_blamed_on_the_setting(tmp_path: Path) -> None:
    network = network_of(tmp_path)
    network.model.norm.weight = mx.ones(3)
    with pytest.raises(ValueError, match="norm"):
        plan_quantization(network, 8)


def test_no_weights_are_read_unless_it_is_evaluated(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    network = load_model(folder, lazy=True)[0]
    before = mx.get_active_memory()
    plan = plan_quantization(network, 8, evaluate=False)
    assert (
        mx.get_active_memory() - before
        < sum(array.nbytes for _, array in tree_flatten(network.parameters())) / 10
    )
    assert plan == KvQuantization(8, 32)
