"""Which models load, and what is said of those that don't."""

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import pytest

from adapters.mlx.cpu_layers import BlasLayers
from adapters.mlx.faults import without_paths
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.mlx.prober import Prober
from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from domain.chat import ChatCommand, Message, Sampling
from domain.errors import EngineFailed
from domain.models import ModelCard, ModelId
from domain.outputs import End, Piece
from tests.fakes import FakeCatalog
from tests.mlx.conftest import Load
from tests.tiny import QWEN3, make_model
from tests.waiting import eventually


async def speaks(load: Load, folder: Path) -> bool:
    engine = await load(folder)
    command = ChatCommand(
        ModelId.parse(folder.name), (Message.user("hi"),), Sampling(temperature=0, max_tokens=4)
    )
    said = [output async for output in engine.generate(command)]
    return isinstance(said[-1], End) and any(isinstance(output, Piece) for output in said)


LLAMA = {key: value for key, value in QWEN3.items() if key != "head_dim"} | {"model_type": "llama"}
GEMMA3 = QWEN3 | {
    "model_type": "gemma3_text",
    "sliding_window": 16,
    "sliding_window_pattern": 2,
    "query_pre_attn_scalar": 32,
    "rope_local_base_freq": 10000.0,
    "rope_global_base_freq": 10000.0,
}
QWEN3_MOE = QWEN3 | {
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}
MAMBA = {
    "model_type": "mamba",
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 128,
    "state_size": 8,
    "num_hidden_layers": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_rank": 4,
}


@pytest.mark.parametrize("config", [QWEN3, LLAMA, GEMMA3, QWEN3_MOE, MAMBA])
async def test_architectures_load_and_speak(
    load: Load, tmp_path: Path, config: dict[str, object]
) -> None:
    folder = make_model(tmp_path / str(config["model_type"]), config, eos=False)
    assert await speaks(load, folder)


@pytest.mark.parametrize("bits", [4, 8])
async def test_quantised_models_load_and_hold_less(load: Load, tmp_path: Path, bits: int) -> None:
    whole = await load(make_model(tmp_path / "whole"))
    folder = make_model(tmp_path / f"q{bits}", bits=bits, eos=False)
    assert await speaks(load, folder)
    assert (await load(folder)).footprint < whole.footprint / 2


async def test_the_footprint_is_that_of_the_weights(load: Load, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    on_disk = (folder / "model.safetensors").stat().st_size
    assert (await load(folder)).footprint == pytest.approx(on_disk, rel=0.02)


async def test_what_is_in_memory_twice_counts_twice(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path / "tiny")
    before = (await load(folder)).footprint
    monkeypatch.setattr(BlasLayers, "copied", 12345)
    monkeypatch.setattr(BlasLayers, "__bool__", lambda layers: True)
    assert (await load(folder)).footprint == before + 12345


async def test_code_that_comes_with_a_model_is_never_run(load: Load, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    sentinel = tmp_path / "sentinel"
    (folder / "evil.py").write_text(f"open({str(sentinel)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_file": "evil.py"}))
    with pytest.raises(EngineFailed, match="never runs code"):
        await load(folder)
    auto_map = {"auto_map": {"AutoTokenizer": ["evil.T", None]}}
    (folder / "config.json").write_text(json.dumps(config | auto_map))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= auto_map | {"tokenizer_class": "T"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    try:
        await load(folder)
    except EngineFailed:
        pass
    assert not sentinel.exists()


async def test_a_lying_header_is_refused(load: Load, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(EngineFailed, match="damaged"):
        await load(folder)


async def test_an_unknown_architecture_is_named(load: Load, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    with pytest.raises(EngineFailed, match="nonesuch"):
        await load(folder)


async def test_a_closed_engine_leaves_no_thread(load: Load, tmp_path: Path) -> None:
    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    engine = await load(make_model(tmp_path / "leaves"))
    assert "mlx leaves" in threads()
    await engine.close()
    for thread in threading.enumerate():
        if thread.name == "mlx leaves":
            thread.join(5)
    assert "mlx leaves" not in threads()


async def test_a_load_that_waits_for_its_disk_is_given_up_and_others_load(
    tmp_path: Path, tiny_model: Path
) -> None:
    stuck = make_model(tmp_path / "stuck", eos=False)
    cards = [
        ModelCard(ModelId.parse(folder.name), "", folder, 400_000, 512, 0)
        for folder in (stuck, tiny_model)
    ]
    loader = MlxEngineLoader(MlxOptions())
    limits = PoolLimits(10**9, load_timeout=2.0, slots=2)
    pool = ModelPool(FakeCatalog(*cards), loader, time.monotonic, limits)
    for card in cards:
        await loader.profile(card, None)
    config = stuck / "config.json"
    config.unlink()
    os.mkfifo(config)  # whoever opens it waits for somebody who writes
    try:
        with pytest.raises(EngineFailed, match="load hung"):
            await asyncio.wait_for(pool.load(cards[0].id), 20)
        held = pool.snapshot()
        assert held.hung == (cards[0].id,)
        assert held.leaving > 0
        await asyncio.wait_for(pool.load(cards[1].id), 60)
    finally:
        await asyncio.to_thread(config.write_text, "{")
    await eventually(lambda: not pool.snapshot().hung)
    assert pool.snapshot().leaving == 0
    await pool.close()


async def test_files_that_are_never_read_hold_up_no_others(
    tmp_path: Path, tiny_model: Path
) -> None:
    stuck = [make_model(tmp_path / f"stuck{n}") for n in range(2)]
    for folder in stuck:
        (folder / "config.json").unlink()
        os.mkfifo(folder / "config.json")
    cards = [
        ModelCard(ModelId.parse(folder.name), "", folder, 400_000, 512, 0)
        for folder in (*stuck, tiny_model)
    ]
    prober = Prober(MlxOptions(), patience=0.2)
    *waiting, good = [asyncio.create_task(prober.profile(card, None)) for card in cards]
    try:
        assert (await asyncio.wait_for(good, 60)).weights > 0
        assert prober.busy
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
    finally:
        for folder in stuck:
            await asyncio.to_thread((folder / "config.json").write_text, "{")
    with pytest.raises(EngineFailed):
        await asyncio.wait_for(waiting[1], 20)
    await eventually(lambda: not prober.busy)


@pytest.mark.parametrize("missing", ["*.safetensors", "config.json", "tokenizer.json"])
async def test_clients_are_not_told_where_models_are(
    load: Load, tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_model(tmp_path / "My (own) models" / "broken")
    for file in folder.glob(missing):
        file.unlink()
    card = ModelCard(ModelId.parse("broken"), "", folder, 400_000, 512, 0)
    prober = Prober(MlxOptions())
    with pytest.raises(EngineFailed) as loading:
        await load(folder)
    told = [str(loading.value)]
    if missing != "tokenizer.json":  # which says nothing of the model's size
        with pytest.raises(EngineFailed) as reading:
            await prober.profile(card, None)
        told.append(str(reading.value))
    assert "`broken` could not be loaded: " in told[0]
    assert not any(tmp_path.name in words or "My" in words for words in told)
    assert any(record.levelname == "ERROR" for record in caplog.records)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("No such file: '/Users/ann/models/m/config.json'", "No such file: 'config.json'"),
        ("dlopen(/opt/venv/lib/libmlx.so, 6): image not found", "dlopen(libmlx.so, 6): image not"),
        ("in ~/.cache/hub/models, twice: /a/b /c/d/", "in models, twice: b d"),
        ("owner/name and/or 1/2 of http://host/a/b", "owner/name and/or 1/2 of http://host/a/b"),
        ("/ and /x stay", "/ and /x stay"),
    ],
)
def test_paths_are_told_by_their_last_name(words: str, told: str) -> None:
    assert without_paths(words).startswith(told)
