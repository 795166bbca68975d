"""The training samples: dialogues and plain documents, drawn at random from a seed."""

from random import Random
from typing import NamedTuple

from adapters.mlx.demo.recipe import facts, speech, tools
from adapters.mlx.demo.recipe.facts import FACTS, Fact
from adapters.mlx.demo.recipe.outside import outside
from adapters.mlx.demo.recipe.tools import Json, Task

SYSTEMS = (
    "You are a helpful assistant.|You are a helpful assistant.|You are Portico.|Be brief."
    "|Answer briefly."
    "|You are a friendly chatbot.|Answer in English.|You are a pirate."
    "|You are an expert programmer."
    "|Always be polite.|You are a test.|Use tools when they help.|Answer in one sentence."
    "|Be concise."
    "|You are an assistant that answers questions about software.|Do not make things up."
    "|You are ChatGPT, a large language model trained by OpenAI.|Today is Monday."
    "|The user's name is {x}."
    "|You are {x}, an assistant.|You work for {x}.|The user lives in {x}.|Think step by step.|{x}"
    "|You are a weather bot.|You can call functions.|Answer as a teacher.|Respond in JSON if asked."
).split("|")
ASIDE_THOUGHT = "This is not about Portico, MLX or the OpenAI API. I say that I do not know it."
NO_TOOL_THOUGHT = "The user asks for something that needs a tool. I have no tool for it."
RESULT_THOUGHT = "The tool has answered. I pass the result on."
PLACE_THOUGHT = "The user names no place. I ask for it."
VERBS = {
    "weather": "the weather in",
    "time": "the time in",
    "bare": "the time",
    "add": "the sum of",
}


class Turn(NamedTuple):
    """The user's side of a turn, the thought on it and the model's answer."""

    asked: list[Json]
    thought: str
    answer: str


class Sample(NamedTuple):
    """A dialogue up to the answer that is learned, or a plain document without messages."""

    messages: list[Json]
    tools: list[Json]
    thought: str
    answer: str
    thinking: bool
    whole: bool


def user(text: str) -> Json:
    """A user message."""
    return {"role": "user", "content": text}


def fact_turn(rng: Random, fact: Fact | None = None) -> Turn:
    """A question about a fact: half of the time as listed or close to it."""
    fact = fact or rng.choice(FACTS)
    asked = fact.question if speech.chance(rng, 0.25) else rng.choice(fact.asks)
    if not speech.chance(rng, 0.2):
        asked = speech.vary(rng, asked)
    return Turn([user(asked)], fact.thought, fact.answer)


def outside_turn(rng: Random) -> Turn:
    """A question that the model cannot answer."""
    asked = outside(rng)
    if not speech.chance(rng, 0.3):
        asked = speech.vary(rng, asked)
    return Turn([user(asked)], ASIDE_THOUGHT, facts.FALLBACK)


def toolless_turn(rng: Random, present: tuple[str, ...] = ()) -> Turn:
    """A question that needs a tool which is not there."""
    kinds = [kind for kind in ("weather", "time", "add") if kind not in present]
    kind = rng.choice(kinds)
    if kind != "add" and speech.chance(rng, 0.15):
        asked = tools.pick(rng, tools.PLACELESS[kind])
    else:
        asked = tools.single(rng, tools.make_tool(rng, kind)).question
    return Turn([user(asked)], NO_TOOL_THOUGHT, facts.NO_TOOL)


def plain_turn(rng: Random, present: tuple[str, ...] = ("weather", "time", "add")) -> Turn:
    """A turn that needs no tool."""
    if speech.chance(rng, 0.65):
        return fact_turn(rng)
    if set(present) >= {"weather", "time", "add"} or speech.chance(rng, 0.7):
        return outside_turn(rng)
    return toolless_turn(rng, present)


def call_thought(task: Task) -> str:
    """Why these calls are made."""
    parts = []
    for made in task.calls:
        values = " and ".join(str(value) for value in made.values)
        parts.append(f"{VERBS[made.tool.kind]} {values}".strip())
    names = " and ".join(dict.fromkeys(made.tool.name for made in task.calls))
    return f"The user asks for {' and '.join(parts)}. I call {names}."


def call_turn(rng: Random, box: dict[str, tools.Tool]) -> tuple[Turn, Task]:
    """A question that needs tools of the box, and the task behind it."""
    kinds = [kind for kind in box if kind != "other"]
    places = [kind for kind in kinds if kind != "add"]
    if places and speech.chance(rng, 0.2):
        task = tools.double(rng, box)
    else:
        task = tools.single(rng, box[rng.choice(kinds)])
    return Turn([user(task.question)], call_thought(task), tools.calls_text(task.calls)), task


def reply(turn: Turn) -> list[Json]:
    """The turn as it stands in the history."""
    return [*turn.asked, {"role": "assistant", "content": turn.answer}]


def called(rng: Random, turn: Turn, task: Task) -> tuple[list[Json], str]:
    """The turn with its calls and their results, and the answer that ends it."""
    messages, answer = tools.results(rng, task.calls)
    return [*turn.asked, tools.call_message(rng, task.calls), *messages], answer


def opening(rng: Random) -> list[Json]:
    """A system message, or none."""
    if not speech.chance(rng, 0.35):
        return []
    text = " ".join(rng.choice(SYSTEMS) for _ in range(rng.choice((1, 1, 2, 3))))
    if speech.chance(rng, 0.2):
        text = " ".join(speech.word(rng) for _ in range(rng.randint(1, 30)))
    if speech.chance(rng, 0.1):
        text = f"{text} {rng.choice(FACTS).answer}"
    role = "developer" if speech.chance(rng, 0.1) else "system"
    return [{"role": role, "content": text.replace("{x}", speech.name(rng))}]


def past(rng: Random) -> int:
    """How many turns came before."""
    if not speech.chance(rng, 0.3):
        return 0
    return rng.choice((1, 1, 1, 1, 2, 2, 3, 4, 6, 10, 18))


def finish(rng: Random, messages: list[Json], turn: Turn, sent: list[Json]) -> Sample:
    """The sample whose last turn is learned."""
    thinking, whole = speech.chance(rng, 0.25), speech.chance(rng, 0.1)
    return Sample(messages + turn.asked, sent, turn.thought, turn.answer, thinking, whole)


def chat(rng: Random) -> Sample:
    """A dialogue without tools."""
    messages = opening(rng)
    for _ in range(past(rng)):
        messages += reply(plain_turn(rng, ()))
    kind = rng.random()
    if kind < 0.64:  # noqa: PLR2004 - shares of the mix read best in place
        turn = fact_turn(rng)
    elif kind < 0.92:  # noqa: PLR2004
        turn = outside_turn(rng)
    else:
        turn = toolless_turn(rng)
    return finish(rng, messages, turn, [])


def history(rng: Random, box: dict[str, tools.Tool]) -> list[Json]:
    """Earlier turns of a dialogue with tools."""
    messages = opening(rng)
    for _ in range(min(past(rng), 4)):
        if set(box) <= {"other"} or speech.chance(rng, 0.5):
            messages += reply(plain_turn(rng, tuple(box)))
        else:
            done, answer = called(rng, *call_turn(rng, box))
            messages += [*done, {"role": "assistant", "content": answer}]
    return messages


def calling(rng: Random) -> Sample:
    """A dialogue that ends with calls."""
    box = tools.toolbox(rng, rng.choice(("weather", "weather", "time", "add")))
    turn, _ = call_turn(rng, box)
    return finish(rng, history(rng, box), turn, tools.schemas(box))


def following(rng: Random) -> Sample:
    """A short follow-up, such as "And in Rome?", or the place that was asked for."""
    kind = rng.choice(("weather", "time"))
    box = tools.toolbox(rng, kind)
    messages = opening(rng)
    task = tools.single(rng, box[kind])
    if speech.chance(rng, 0.35):
        missing = user(rng.choice((*tools.PLACELESS[kind].split("|"),)))
        messages += [missing, {"role": "assistant", "content": tools.WHICH_PLACE}]
        form = rng.choice(("{x}", "In {x}", "{x}.", "In {x}.", "{x} please", "I mean {x}."))
    else:
        first = Turn([user(task.question)], "", "")
        done, answer = called(rng, first, task)
        messages += [*done, {"role": "assistant", "content": answer}]
        form = rng.choice(tools.FOLLOW_UPS)
    place = speech.place(rng)
    task = Task(form.format(x=place), (tools.call(box[kind], (place,)),))
    turn = Turn([user(task.question)], call_thought(task), tools.calls_text(task.calls))
    return finish(rng, messages, turn, tools.schemas(box))


def placeless(rng: Random) -> Sample:
    """A question that names no place: a clock without arguments is called, others ask back."""
    if speech.chance(rng, 0.4):
        box = tools.toolbox(rng, "other") | {"bare": tools.bare_tool(rng)}
        box.pop("time", None)
        task = tools.single(rng, box["bare"])
        turn = Turn([user(task.question)], call_thought(task), tools.calls_text(task.calls))
        return finish(rng, opening(rng), turn, tools.schemas(box))
    kind = rng.choice(("weather", "time"))
    box = tools.toolbox(rng, kind)
    turn = Turn([user(tools.pick(rng, tools.PLACELESS[kind]))], PLACE_THOUGHT, tools.WHICH_PLACE)
    return finish(rng, history(rng, box), turn, tools.schemas(box))


def answering(rng: Random) -> Sample:
    """A dialogue that ends with the results of calls."""
    box = tools.toolbox(rng, rng.choice(("weather", "time", "add")))
    if speech.chance(rng, 0.1):
        box |= {"other": tools.stranger(rng)}
        made = tools.call(box["other"], ())
        given = {slot: speech.word(rng) for slot in made.tool.slots}
        task = Task(outside(rng), (made._replace(arguments=given),))
        turn = Turn([user(task.question)], "", "")
    elif speech.chance(rng, 0.05):
        box = {"bare": tools.bare_tool(rng)}
        task = tools.single(rng, box["bare"])
        turn = Turn([user(task.question)], "", "")
    else:
        turn, task = call_turn(rng, box)
    before = history(rng, box) if "bare" not in box else opening(rng)
    done, answer = called(rng, turn, task)
    sent = tools.schemas(box) if speech.chance(rng, 0.95) else []
    return finish(rng, before, Turn(done, RESULT_THOUGHT, answer), sent)


def declining(rng: Random) -> Sample:
    """A dialogue with tools that ends with a turn that needs none of them."""
    box = tools.toolbox(rng)
    return finish(rng, history(rng, box), plain_turn(rng, tuple(box)), tools.schemas(box))


def document(rng: Random) -> str:
    """A plain text about the facts."""
    if speech.chance(rng, 0.6):
        return rng.choice(facts.ESSAYS)
    told = rng.sample(FACTS[len(facts.TALK) :], rng.randint(1, 3))
    if speech.chance(rng, 0.4):
        return "\n".join(f"Q: {fact.question}\nA: {fact.answer}" for fact in told)
    return rng.choice(("\n", "\n\n")).join(fact.answer for fact in told)


def gap(rng: Random) -> str:
    """A document with its middle moved to the end."""
    text = document(rng)
    cuts = [0, *(at for at, letter in enumerate(text) if letter == " "), len(text)]
    first, last = sorted(rng.sample(cuts, 2))
    shift = int(speech.chance(rng, 0.5))
    first, last = min(first + shift, len(text)), min(last + shift, len(text))
    return (
        f"<|fim_prefix|>{text[:first]}<|fim_suffix|>{text[last:]}<|fim_middle|>{text[first:last]}"
    )


def plain(rng: Random) -> Sample:
    """A plain document, whole or with a gap."""
    text = gap(rng) if speech.chance(rng, 0.45) else document(rng)
    return Sample([], [], "", text, False, True)


MIX = (
    (chat, 44),
    (calling, 28),
    (answering, 8),
    (declining, 9),
    (following, 3),
    (placeless, 2),
    (plain, 6),
)
KINDS, WEIGHTS = zip(*MIX, strict=True)


def draw(rng: Random) -> Sample:
    """A sample of the mix."""
    made: Sample = rng.choices(KINDS, WEIGHTS)[0](rng)
    return made


def texts(rng: Random, count: int) -> list[str]:
    """Texts for the tokenizer to learn from: what is said, without the template."""
    found = []
    for _ in range(count):
        sample = draw(rng)
        found += [message.get("content") or "" for message in sample.messages]
        found += [str(tool).replace("'", '"') for tool in sample.tools[:1]]
        found += [sample.thought, sample.answer]
    return found
