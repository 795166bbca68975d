"""A model and its draft under the pool's budget, by the settings."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.container import Container
from adapters.mlx.batch import Batch
from adapters.mlx.drafters import Drafters
from adapters.mlx.worker import Worker
from adapters.settings import Settings
from domain.chat import ChatCommand, Message, Sampling
from domain.errors import ModelTooLarge, ModelUnusable
from domain.events import assemble
from domain.models import ModelId
from domain.speculation import Payoff
from tests.tiny import QWEN3, make_model

NO_END = {256: -100.0, 257: -100.0, 258: -100.0}  # random weights like to stop
TARGET = ModelId.parse("target")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models `target` and `owner/draft`."""
    folder = tmp_path_factory.mktemp("pair")
    make_model(folder / "target")
    make_model(folder / "owner" / "draft", QWEN3 | {"num_hidden_layers": 1})
    return folder


def container(folder: Path, draft: str | None = "owner/draft", **settings: object) -> Container:
    own = {"target": {"draft_model": draft}} if draft else {}
    given = {"available_models": (str(folder),), "models": own} | settings
    return Container(settings=Settings(**given))  # type: ignore[arg-type]


async def answer(wired: Container, text: str = "hello", max_tokens: int = 60) -> str:
    sampling = Sampling(temperature=0.9, seed=5, max_tokens=max_tokens, logit_bias=NO_END)
    command = ChatCommand(TARGET, (Message.user(text),), sampling)
    return assemble([event async for event in wired.complete_chat()(command)]).text


async def test_both_are_planned_for_and_the_answer_is_the_same(folder: Path) -> None:
    plain, drafted = container(folder, None), container(folder)
    assert await answer(drafted) == await answer(plain)
    (one,) = plain.models().snapshot().residents
    (both,) = drafted.models().snapshot().residents
    catalog = plain.catalog()
    small = await plain.loader().profile(await catalog.find(ModelId.parse("owner/draft")), None)
    for tokens, rows in ((100, 1), (500, 8)):
        alone = one.plan.profile.kv(tokens, rows)
        assert both.plan.profile.kv(tokens, rows) == alone + small.kv(tokens, rows)
    assert both.plan.need.weights == one.plan.need.weights + small.weights
    assert both.need >= one.need + small.weights
    assert both.stats.drafted_tokens > 0 == one.stats.drafted_tokens
    for wired in (plain, drafted):
        await wired.models().close()


async def test_stop_strings_limits_and_usage_are_those_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Payoff, "pays", lambda *_: True)
    plain, drafted = container(folder, None), container(folder)
    text = await answer(plain, max_tokens=80)
    assert await answer(drafted, max_tokens=80) == text
    stops = {text[at : at + length] for at in (5, 17, 30) for length in (1, 2, 4)}
    for sampling in (
        *(Sampling(temperature=0.9, seed=5, max_tokens=80, stop=(stop,)) for stop in stops),
        *(Sampling(temperature=0.9, seed=5, max_tokens=length) for length in (1, 2, 3, 9)),
    ):
        kept = replace(sampling, logit_bias=NO_END)
        command = ChatCommand(TARGET, (Message.user("hello"),), kept)
        answers = []
        for wired in (plain, drafted):
            events = [event async for event in wired.complete_chat()(command)]
            answers.append(assemble(events))
        assert answers[0] == answers[1]
        assert answers[1].reason == ("stop" if sampling.stop else "length")
    for wired in (plain, drafted):
        await wired.models().close()


async def test_the_caches_of_both_stay_within_what_the_reserve_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    count = Worker._count

    def watch(worker: Worker, batch: Batch) -> None:
        count(worker, batch)
        speculation = batch._speculation
        assert speculation is not None
        drafters = speculation._guesser
        assert isinstance(drafters, Drafters)
        drafts = [cache for d in drafters._by_request.values() for cache in d._caches]
        held = [request.held + min(5, request.left) for request in batch.requests]
        taken = sum(c.nbytes for c in (*batch._decoding._rows.caches, *drafts) if not c.empty())
        counted = worker._link.plan.profile.kv(max(held), len(held)) if held else 0
        seen.append((taken, counted))

    monkeypatch.setattr(Worker, "_count", watch)
    monkeypatch.setattr(Payoff, "pays", lambda *_: True)
    wired = container(folder)
    await asyncio.gather(*(answer(wired, "x" * 100 * n, 200 + 30 * n) for n in range(3)))
    assert all(taken <= counted for taken, counted in seen)
    assert max(taken for taken, _ in seen) > 0.5 * max(counted for _, counted in seen) > 0
    assert seen[-1] == (0, 0)
    (resident,) = wired.models().snapshot().residents
    assert resident.stats.drafted_tokens > 100
    await wired.models().close()


async def test_what_fits_alone_may_not_fit_with_its_draft(folder: Path) -> None:
    plain, drafted = container(folder, None), container(folder)
    need = (await plain.models().estimate(TARGET, 64, 1)).need.total
    both = (await drafted.models().estimate(TARGET, 64, 1)).need.total
    assert both > need
    tight = {"memory_budget_gb": (need + both) / 2e9, "context_length": 64, "kv_concurrency": 1}
    fits = container(folder, None, **tight)
    assert await answer(fits)
    with pytest.raises(ModelTooLarge):
        await answer(container(folder, **tight))
    await fits.models().close()


async def test_a_draft_need_not_be_offered(folder: Path, tmp_path: Path) -> None:
    only = {"available_models": (str(folder / "target"),), "models_dir": folder}
    wired = container(folder, **only)
    assert await answer(wired)
    (resident,) = wired.models().snapshot().residents
    assert resident.stats.drafted_tokens > 0
    await wired.models().close()


async def test_a_draft_that_is_not_on_this_machine_is_named(folder: Path) -> None:
    wired = container(folder, "owner/elsewhere")
    with pytest.raises(ModelUnusable, match=r"`owner/elsewhere`, the draft model of `target`"):
        await answer(wired)
    assert not wired.models().snapshot().residents


async def test_a_draft_of_another_family_fails_the_load_by_name(
    folder: Path, tmp_path: Path
) -> None:
    stranger = make_model(tmp_path / "stranger")
    file = stranger / "tokenizer.json"
    tokenizer = json.loads(file.read_text("utf-8"))
    tokenizer["added_tokens"][-1]["content"] = "<|end|>"
    file.write_text(json.dumps(tokenizer), "utf-8")
    settings = stranger / "tokenizer_config.json"
    settings.write_text(settings.read_text("utf-8").replace("<|im_end|>", "<|end|>"), "utf-8")
    wired = container(folder, "stranger", available_models=(str(folder), str(stranger)))
    with pytest.raises(ModelUnusable, match=r"`stranger` can't be the draft model of `target`"):
        await answer(wired)
    await wired.models().close()
