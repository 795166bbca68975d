"""Answers with a draft model are those without, whatever it guesses and whatever goes on beside."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters.mlx.drafter import Drafter
from adapters.mlx.engine import MlxEngine
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.mlx.worker import Worker
from application.ports import EngineStats
from domain.chat import ChatCommand, JsonSchema, Message, Sampling
from domain.errors import ModelUnusable
from domain.models import ModelCard, ModelId
from domain.outputs import End, EngineOutput, Piece, PromptProgress
from domain.speculation import Draft, Payoff
from tests.generations import outputs
from tests.mlx.architectures import BY_NAME
from tests.plans import plan_for
from tests.tiny import QWEN3, make_model
from tests.waiting import eventually

TINY = ModelId.parse("tiny")
NO_END = {256: -100.0, 257: -100.0, 258: -100.0}  # random weights like to stop
DRAFTS: dict[str, dict[str, Any]] = {
    "the same": QWEN3,
    "another": QWEN3 | {"num_hidden_layers": 1},
    "wider": QWEN3 | {"vocab_size": 320},
    "narrower": QWEN3 | {"vocab_size": 259, "hidden_size": 32},
}

LoadPair = Callable[..., Awaitable[MlxEngine]]  # target, draft or None, guesses; plan_for's options


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target, whose vocabulary is padded, and its drafts."""
    folder = tmp_path_factory.mktemp("drafts")
    make_model(folder / "tiny", QWEN3 | {"vocab_size": 288})
    make_model(folder / "the same", QWEN3 | {"vocab_size": 288})
    for name in ("another", "wider", "narrower"):
        make_model(folder / name, DRAFTS[name])
    return folder


def card_of(folder: Path) -> ModelCard:
    return ModelCard(ModelId.parse(folder.name.replace(" ", "-")), "", folder, 400_000, 512, 0)


@pytest_asyncio.fixture
async def load(folders: Path) -> AsyncIterator[LoadPair]:
    engines: list[MlxEngine] = []

    async def load_pair(
        draft: str | Path | None,
        guesses: int = 4,
        target: Path | None = None,
        kv_bits: int | None = None,
        **plan: int,
    ) -> MlxEngine:
        card = card_of(target or folders / "tiny")
        planned = replace(plan_for(card, **plan), kv_bits=kv_bits)
        if draft:
            planned = replace(planned, draft=Draft(card_of(folders / draft), guesses))
        options = MlxOptions(prompt_lookup_tokens=0)
        engines.append(await MlxEngineLoader(options).load(card, planned))
        return engines[-1]

    yield load_pair
    for engine in engines:
        await engine.close()


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess whether it pays or not."""
    monkeypatch.setattr(Payoff, "pays", lambda *_: True)


def chat(text: str, **sampling: Any) -> ChatCommand:
    settings = {"temperature": 0, "max_tokens": 40} | sampling
    return ChatCommand(TINY, (Message.user(text),), Sampling(**settings))


COMMANDS = [
    chat("greedy", logit_bias=NO_END),
    chat("greedy, and ends where it likes", max_tokens=200),
    chat("seeded", temperature=1.0, seed=3, logit_bias=NO_END),
    chat("seeded, and ends where it likes", temperature=1.0, seed=8, max_tokens=200),
    chat("nucleus", temperature=0.8, seed=9, top_p=0.9, top_k=40, min_p=0.01),
    chat("scores", temperature=0.9, seed=4, top_logprobs=2),
    chat("a prompt of more tokens than the draft reads at once " * 4, logit_bias=NO_END),
    *(chat("short", max_tokens=length, logit_bias=NO_END) for length in range(1, 8)),
]


def texts(said: list[EngineOutput]) -> list[str]:
    return [output.text for output in said if isinstance(output, Piece | End)]


def scores(said: list[EngineOutput]) -> list[float]:
    return [output.score.logprob for output in said if isinstance(output, Piece) and output.score]


@pytest.mark.parametrize("draft", DRAFTS)
async def test_answers_are_those_without_a_draft(load: LoadPair, always: None, draft: str) -> None:
    plain, drafted = await load(None), await load(draft)
    related = draft in {"the same", "another"}
    for command in COMMANDS if related else COMMANDS[:10:2]:
        expected, said = await outputs(plain, command), await outputs(drafted, command)
        assert texts(said) == texts(expected)
        assert said[-1] == expected[-1]
        assert scores(said) == pytest.approx(scores(expected), abs=1e-3)
        assert said[0] == expected[0]
    stats = drafted.stats
    assert stats.drafted_tokens > 100
    assert stats.generated_tokens == plain.stats.generated_tokens
    assert plain.stats.drafted_tokens == 0
    if draft == "the same":
        assert stats.accepted_tokens > 0.95 * stats.drafted_tokens
        assert stats.steps < 0.4 * stats.generated_tokens
    else:
        assert stats.accepted_tokens < 0.5 * stats.drafted_tokens


@pytest.mark.parametrize("guesses", [1, 16])
async def test_any_number_of_guesses(load: LoadPair, always: None, guesses: int) -> None:
    plain, drafted = await load(None), await load("the same", guesses)
    for command in COMMANDS[:5]:
        assert texts(await outputs(drafted, command)) == texts(await outputs(plain, command))
    assert drafted.stats.accepted_tokens > 0.8 * drafted.stats.drafted_tokens


async def test_the_next_turn_begins_with_what_the_answer_left(load: LoadPair, always: None) -> None:
    plain, drafted = await load(None), await load("the same")
    for max_tokens in (40, 41, 42, 43, 44):
        question = Message.user(f"a question that is not short at all {max_tokens}")
        sampling = Sampling(temperature=0, max_tokens=max_tokens, logit_bias=NO_END)
        first = ChatCommand(TINY, (question,), sampling)
        said = [await outputs(engine, first) for engine in (plain, drafted)]
        assert texts(said[0]) == texts(said[1])
        answer = Message.assistant("".join(texts(said[0])))
        second = replace(first, messages=(question, answer, Message.user("and?")))
        again = [await outputs(engine, second) for engine in (plain, drafted)]
        assert texts(again[0]) == texts(again[1])
        cached = [max(o.cached for o in one if isinstance(o, PromptProgress)) for one in again]
        assert cached[0] == cached[1] > 32


async def test_the_draft_reads_only_what_is_new_of_a_second_turn(
    load: LoadPair, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    read = Drafter.read

    def watch(drafter: Drafter, at_most: int) -> int:
        counted.append(read(drafter, at_most))
        return counted[-1]

    monkeypatch.setattr(Drafter, "read", watch)
    plain, drafted = await load(None), await load("the same")
    for scope in ("one", "other"):  # nothing is shared between them
        counted.clear()
        first = replace(chat("x" * 200, max_tokens=43, logit_bias=NO_END), cache_scope=scope)
        answer = Message.assistant("".join(texts(await outputs(drafted, first))))
        assert sum(counted) > 150
        counted.clear()
        turns = (*first.messages, answer, Message.user("y" * 40))
        second = replace(first, messages=turns)
        assert texts(await outputs(drafted, second)) == texts(await outputs(plain, second))
        assert 0 < sum(counted) < 150


@pytest.mark.parametrize("draft", ["the same", "another"])
async def test_a_few_rows_guess_together(load: LoadPair, always: None, draft: str) -> None:
    plain, drafted = await load(None), await load(draft)
    kinds: list[dict[str, Any]] = [
        {"max_tokens": 60},
        {"temperature": 1.0, "seed": 3, "max_tokens": 45},
        {"temperature": 0.8, "seed": 4, "top_p": 0.9, "top_logprobs": 1, "max_tokens": 41},
        {"temperature": 0.5, "seed": 5, "max_tokens": 50},
    ]
    options = {"logit_bias": NO_END}
    commands = [chat("x" * 9 * n + str(n), **(kind | options)) for n, kind in enumerate(kinds)]
    for width in (2, 4):
        expected = [texts(await outputs(plain, command)) for command in commands[:width]]
        told = drafted.stats
        said = await asyncio.gather(*(outputs(drafted, command) for command in commands[:width]))
        assert [texts(one) for one in said] == expected
        tokens = drafted.stats.generated_tokens - told.generated_tokens
        assert tokens == sum(len(one) - 1 for one in expected)
        if draft == "the same":
            assert drafted.stats.steps - told.steps < 0.8 * 60
    assert drafted.stats.drafted_tokens > 200
    assert drafted.stats.widest_batch == 4
    # What each left behind is right: the next turns begin with it, and say the same.
    for n, command in enumerate(commands):
        answer = Message.assistant("".join(texts(await outputs(plain, command))))
        turns = (*command.messages, answer, Message.user("and?"))
        second = replace(command, messages=turns)
        again = [await outputs(engine, second) for engine in (plain, drafted)]
        assert texts(again[0]) == texts(again[1]), n


async def test_neighbours_join_and_leave_amid_guesses(load: LoadPair, always: None) -> None:
    plain, drafted = await load(None), await load("the same")
    long = chat("long", temperature=0.9, seed=5, max_tokens=250, logit_bias=NO_END)
    short = [chat(f"short {n}", max_tokens=20 + n, logit_bias=NO_END) for n in range(3)]
    expected = [texts(await outputs(plain, command)) for command in (long, *short)]
    beside: list[asyncio.Task[list[EngineOutput]]] = []
    said: list[EngineOutput] = []
    async for output in drafted.generate(long):
        said.append(output)
        if len(said) in (50, 100, 150):
            command = short[len(beside)]
            beside.append(asyncio.create_task(outputs(drafted, command)))
    others = await asyncio.gather(*beside)
    assert [texts(one) for one in (said, *others)] == expected
    assert drafted.stats.widest_batch > 1
    assert drafted.stats.accepted_tokens > 50


async def test_what_guesses_are_of_no_use_to_takes_ordinary_steps(
    load: LoadPair, always: None
) -> None:
    drafted = await load("the same")
    schema = JsonSchema({"type": "object", "properties": {"x": {"type": "integer"}}})
    penalised = chat("penalties", presence_penalty=1.0, logit_bias=NO_END)
    for command in (penalised, replace(chat("a grammar"), constraint=schema)):
        assert isinstance((await outputs(drafted, command))[-1], End)
    assert drafted.stats.drafted_tokens == 0


async def test_a_cancelled_answer_leaves_nothing_behind(load: LoadPair, always: None) -> None:
    plain, drafted = await load(None), await load("another")
    for stop in (1, 2, 7, 30):
        async with aclosing(drafted.generate(COMMANDS[2])) as generation:
            for _ in range(stop):
                await anext(generation)
    assert texts(await outputs(drafted, COMMANDS[2])) == texts(await outputs(plain, COMMANDS[2]))
    await eventually(lambda: not drafted.stats.running, 30)
    assert drafted.stats.running == drafted.stats.kv_bytes == 0


async def test_requests_give_way_to_each_other_amid_guesses(
    load: LoadPair, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[EngineStats] = []
    count = Worker._count

    def watch(worker: Worker, *args: Any) -> None:
        count(worker, *args)
        taken.append(worker._link.stats)

    plain = await load(None, context_length=1024)
    commands = [chat("x" * 200 + str(n), max_tokens=300, logit_bias=NO_END) for n in range(3)]
    expected = [texts(await outputs(plain, command)) for command in commands]
    monkeypatch.setattr(Worker, "_count", watch)
    drafted = await load("the same", context_length=1024, concurrency=1)
    said = await asyncio.gather(*(outputs(drafted, command) for command in commands))
    assert [texts(one) for one in said] == expected
    assert drafted.stats.preemptions > 0
    assert drafted.stats.accepted_tokens > 0
    assert max(stats.kv_bytes for stats in taken) <= 1024 * 1024


async def test_useless_guesses_stop_by_themselves(load: LoadPair) -> None:
    drafted = await load("wider")
    for n in range(6):
        await outputs(drafted, chat(f"{n}", max_tokens=400, logit_bias=NO_END))
    stats = drafted.stats
    assert stats.generated_tokens == 2400
    # Trials of 9 steps at most, after rests of 64, 256, 1,024 …
    assert 0 < stats.drafted_tokens <= 4 * 9 * 5


KINDS = ["list of plain", "list with an indexer", "quantised"]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_cache_that_can_be_cut_back(
    load: LoadPair, always: None, tmp_path: Path, kind: str
) -> None:
    target = make_model(tmp_path / "target", BY_NAME.get(kind, QWEN3))
    bits = 8 if kind == "quantised" else None
    plain = await load(None, target=target, kv_bits=bits)
    drafted = await load("another", target=target, kv_bits=bits)
    commands = (COMMANDS[0], COMMANDS[2])
    expected = [texts(await outputs(plain, command)) for command in commands]
    alone = [texts(await outputs(drafted, command)) for command in commands]
    together = await asyncio.gather(*(outputs(drafted, command) for command in commands))
    assert alone == [texts(said) for said in together] == expected
    assert drafted.stats.drafted_tokens > 50
    assert drafted.stats.widest_batch == 2


@pytest.mark.parametrize("kind", ["rotating", "recurrent"])
async def test_models_that_cannot_take_tokens_back_are_refused(
    load: LoadPair, folders: Path, tmp_path: Path, kind: str
) -> None:
    model = make_model(tmp_path / "unsuitable", BY_NAME[kind])
    with pytest.raises(ModelUnusable, match="the caches of `unsuitable` can't be cut back"):
        await load("another", target=model)
    with pytest.raises(ModelUnusable, match=r"`unsuitable` can't be the draft.*its own caches"):
        await load(model, target=folders / "tiny")


async def test_a_draft_with_another_vocabulary_is_refused(load: LoadPair, tmp_path: Path) -> None:
    swapped = make_model(tmp_path / "swapped")
    file = swapped / "tokenizer.json"
    tokenizer = json.loads(file.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    file.write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(ModelUnusable) as refused:
        await load(swapped)
    assert "`swapped` can't be the draft model of `tiny` (`draft_model`)" in str(refused.value)
    assert "'A', is token" in str(refused.value)


async def test_a_damaged_draft_is_named(load: LoadPair, tmp_path: Path) -> None:
    damaged = make_model(tmp_path / "damaged")
    for weights in damaged.glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelUnusable, match=r"`damaged` can't be the draft model of `tiny`"):
        await load(damaged)
    for weights in damaged.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ModelUnusable, match="`damaged` could not be loaded"):
        await load(damaged)


async def test_both_models_count(load: LoadPair, folders: Path) -> None:
    plain, drafted = await load(None), await load("another")
    small = await load(None, target=folders / "another")
    assert drafted.footprint == plain.footprint + small.footprint
