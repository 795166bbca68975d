"""What every engine promises (application/ports.py), run against each of them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from application.ports import Engine
from domain.chat import ChatCommand, Image, Message, Sampling, TextCommand
from domain.errors import ContextOverflow, InvalidRequest, ShuttingDown
from domain.models import ModelId
from domain.outputs import End, EngineOutput, Piece, PromptProgress
from tests.generations import outputs
from tests.waiting import eventually

MODEL = ModelId.parse("tiny")
SETTLED = 5.0  # seconds after which something that does not happen counts as not happening


def chat(text: str = "hello", **sampling: object) -> ChatCommand:
    settings = {"temperature": 0, "max_tokens": 12} | sampling
    return ChatCommand(MODEL, (Message.user(text),), Sampling(**settings))  # type: ignore[arg-type]


def text_of(said: list[EngineOutput]) -> str:
    return "".join(o.text for o in said if isinstance(o, Piece | End))


async def idle(engine: Engine) -> None:
    await eventually(lambda: not (engine.stats.running or engine.stats.waiting), SETTLED)


async def test_a_generation_is_progress_then_pieces_then_one_end(engine: Engine) -> None:
    said = await outputs(engine, chat())
    kinds = [type(output) for output in said]
    assert kinds[0] is PromptProgress
    assert kinds[-1] is End
    first_piece = kinds.index(Piece)
    assert set(kinds[:first_piece]) == {PromptProgress}
    assert set(kinds[first_piece:-1]) == {Piece}


async def test_max_tokens_is_exact_and_ends_with_length(engine: Engine) -> None:
    for limit in (1, 2, 7):
        said = await outputs(engine, chat(max_tokens=limit))
        assert sum(isinstance(output, Piece) for output in said) == limit
        assert said[-1] == End("length")


async def test_without_max_tokens_the_context_is_the_limit(engine: Engine) -> None:
    said = await outputs(engine, chat("x " * 200, max_tokens=None))
    prompt = said[0]
    assert isinstance(prompt, PromptProgress)
    pieces = sum(isinstance(output, Piece) for output in said)
    assert prompt.total + pieces == 512
    assert isinstance(said[-1], End)
    assert said[-1].reason == "length"


async def test_greedy_generations_repeat_themselves(engine: Engine) -> None:
    assert text_of(await outputs(engine, chat())) == text_of(await outputs(engine, chat()))


async def test_concurrent_generations_share_the_batch_and_say_what_they_say_alone(
    engine: Engine,
) -> None:
    questions = [f"question {n}" for n in range(10)]
    alone = [text_of(await outputs(engine, chat(q))) for q in questions]
    together = await asyncio.gather(*(outputs(engine, chat(q)) for q in questions))
    assert [text_of(said) for said in together] == alone
    assert engine.stats.widest_batch == 10


async def test_a_late_request_joins_the_running_batch(engine: Engine) -> None:
    async with aclosing(engine.generate(chat(max_tokens=200))) as early:
        await skip(early, 5)
        late = await outputs(engine, chat("late", max_tokens=3))
        assert engine.stats.running == 1
        assert engine.stats.widest_batch == 2
    assert isinstance(late[-1], End)


@pytest.mark.parametrize("after", [0, 1, 2, 5])
async def test_closing_at_any_point_frees_the_place(engine: Engine, after: int) -> None:
    generation = engine.generate(chat(max_tokens=400))
    await skip(generation, after)
    await generation.aclose()
    await idle(engine)
    assert isinstance((await outputs(engine, chat()))[-1], End)


async def test_many_requests_with_some_cancelled_leave_the_others_whole(engine: Engine) -> None:
    expected = text_of(await outputs(engine, chat("keep", max_tokens=30)))

    async def leave(after: int) -> None:
        async with aclosing(engine.generate(chat(f"leave {after}", max_tokens=300))) as generation:
            await skip(generation, after)

    kept = [outputs(engine, chat("keep", max_tokens=30)) for _ in range(10)]
    left = [leave(after) for after in range(10)]
    results = await asyncio.gather(*kept, *left)
    assert all(said and text_of(said) == expected for said in results[:10] if said is not None)
    await idle(engine)


async def test_overflow_is_refused_before_the_first_output(engine: Engine) -> None:
    with pytest.raises(ContextOverflow) as caught:
        await outputs(engine, chat("word " * 600))
    assert caught.value.context_length == 512
    assert caught.value.prompt_tokens >= 512
    assert caught.value.param == "messages"


async def test_an_image_is_refused_by_an_engine_that_only_reads(engine: Engine) -> None:
    command = ChatCommand(MODEL, (Message("user", (Image("data:image/png;base64,"),)),))
    with pytest.raises(InvalidRequest):
        await outputs(engine, command)


async def test_a_refused_request_hurts_nobody_else(engine: Engine) -> None:
    alone = text_of(await outputs(engine, chat()))
    good, bad = await asyncio.gather(
        outputs(engine, chat()), outputs(engine, chat("word " * 600)), return_exceptions=True
    )
    assert isinstance(bad, ContextOverflow)
    assert not isinstance(good, BaseException)
    assert text_of(good) == alone


async def test_text_commands_take_strings_and_token_ids(engine: Engine) -> None:
    for prompt in ("once upon a time", (1, 2, 3)):
        command = TextCommand(MODEL, prompt, Sampling(temperature=0, max_tokens=4))
        said = await outputs(engine, command)
        assert isinstance(said[0], PromptProgress)
        assert said[0].total > 0
        assert isinstance(said[-1], End)


async def test_scores_come_when_asked_for_and_only_then(engine: Engine) -> None:
    plain = await outputs(engine, chat())
    assert all(output.score is None for output in plain if isinstance(output, Piece))
    scored = [o for o in await outputs(engine, chat(top_logprobs=3)) if isinstance(o, Piece)]
    for piece in scored:
        assert piece.score is not None
        assert piece.score.logprob <= 0
        assert len(piece.score.alternatives) == 3
        likeliest = [alternative.logprob for alternative in piece.score.alternatives]
        assert likeliest == sorted(likeliest, reverse=True)
        assert piece.score.logprob == likeliest[0]  # greedy


async def test_closing_the_engine_tells_those_in_flight(engine: Engine) -> None:
    generation = engine.generate(chat(max_tokens=400))
    await skip(generation, 3)
    await engine.close()
    assert not engine.alive
    with pytest.raises(ShuttingDown):
        async for _ in generation:
            pass
    with pytest.raises(ShuttingDown):
        await outputs(engine, chat())
    await engine.close()


async def skip(generation: AsyncGenerator[EngineOutput, None], count: int) -> None:
    for _ in range(count):
        await anext(generation)
