"""Tool schemas in many spellings, questions that need them, calls and results."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from adapters.mlx.demo.recipe import speech

Json = dict[str, Any]
WHICH_PLACE = "For which place?"

NAMES = {
    "weather": "get_weather|get_weather|get_weather|get_weather|get_weather|get_current_weather"
    "|weather|fetch_weather|current_weather|weather_lookup|getWeather",
    "time": "get_time|get_time|get_time|get_time|get_time|get_current_time|current_time|time_now"
    "|fetch_time|getTime|local_time",
    "add": "add|add|add|add|add|add|add_numbers|sum|calculate_sum|add_two_numbers|plus|addNumbers",
}
ABOUT = {
    "weather": "Get the weather.|Get the current weather for a city.|Weather of a place."
    "|Returns the current weather in a given location.|Look up the weather|Current weather"
    "|Get the weather in a city|Tells how the weather is."
    "|Get current temperature for a given location.",
    "time": "Get the time.|Get the current time in a city.|Local time of a place.|Tells the time."
    "|Returns the current time in a given time zone.|Current time|Look up the local time"
    "|Get the time in a city|What time it is somewhere.",
    "add": "Add two numbers.|Adds two numbers and returns the sum.|Sum of two numbers|Add a and b."
    "|Returns the sum.|Add numbers|Compute a sum.|Adds integers.",
}
PLACE_SLOTS = "city|city|city|location|location|place|city_name|town|where|address|name|loc|q|query"
SLOTS = {"weather": PLACE_SLOTS, "time": f"{PLACE_SLOTS}|timezone|timezone|zone|tz|time_zone"}
PAIRS = (
    "a,b|a,b|a,b|x,y|first,second|num1,num2|left,right|n1,n2|number1,number2|augend,addend|m,n|i,j"
)
UNIT_SLOTS = "unit|unit|units|temperature_unit|scale"
UNITS = (
    "celsius,fahrenheit|celsius,fahrenheit|fahrenheit,celsius|metric,imperial|C,F"
    "|Celsius,Fahrenheit"
)
FORMATS = "12h,24h|24h,12h|short,long|12,24"
IDLE_SLOTS = (
    ("days", {"type": "integer"}),
    ("lang", {"type": "string"}),
    ("detailed", {"type": "boolean"}),
    ("verbose", {"type": "boolean", "default": False}),
    ("precision", {"type": "integer", "description": "Number of digits"}),
)
ASKS = {
    "weather": "What is the weather in {x}?|What's the weather in {x}?"
    "|What's the weather like in {x}?"
    "|How is the weather in {x}?|How's the weather in {x} today?|Weather in {x}|Weather in {x}?"
    "|weather {x}"
    "|{x} weather|Is it raining in {x}?|Is it raining in {x} right now?|Is it cold in {x}?"
    "|Is it warm in {x}?"
    "|Is it sunny in {x} today?|How warm is it in {x}?|How cold is it in {x}?"
    "|How hot is it in {x} now?"
    "|What is the temperature in {x}?|What's the temperature in {x} right now?|Temperature in {x}"
    "|Tell me the weather in {x}.|Give me the weather for {x}.|Show me the weather in {x}, please."
    "|Get the weather for {x}.|Check the weather in {x}.|Look up the weather in {x}."
    "|Find the weather in {x}"
    "|I need the weather in {x}.|I want to know the weather in {x}."
    "|I am in {x}. What is the weather?"
    "|I'm going to {x} today. How is the weather?|Do I need an umbrella in {x}?|Is it windy in {x}?"
    "|Does it snow in {x}?|Is it snowing in {x}?|What is the forecast for {x}?|Forecast for {x}"
    "|Can you tell me the weather in {x}?|Could you check the weather in {x}?"
    "|What about the weather in {x}?"
    "|What is the current weather in {x}?|What's {x}'s weather?"
    "|How is the weather over in {x} at the moment?"
    "|Please get the weather in {x}.|Use the tool to get the weather in {x}."
    "|What weather do they have in {x}?"
    "|Should I take a coat in {x}?|Call the weather tool for {x}.|What will the weather be in {x}?",
    "time": "What time is it in {x}?|What's the time in {x}?|What is the time in {x}?|Time in {x}"
    "|Time in {x}?"
    "|What time is it in {x} right now?|What is the current time in {x}?"
    "|What time is it now in {x}?"
    "|Tell me the time in {x}.|Give me the time in {x}.|Show me the time in {x}."
    "|Get the time in {x}."
    "|How late is it in {x}?|What time do they have in {x}?|Current time in {x}|Local time in {x}"
    "|What is the local time in {x}?|I need the time in {x}.|I want to know the time in {x}."
    "|Can you tell me the time in {x}?|Could you look up the time in {x}?|Check the time in {x}."
    "|Do you know what time it is in {x}?|I am in {x}. What time is it?|What hour is it in {x}?"
    "|{x} time"
    "|Please get the time in {x}.|Use the tool to get the time in {x}."
    "|What does the clock say in {x}?"
    "|Tell me what time it is in {x}.|Call the time tool for {x}."
    "|What's the time over in {x} at the moment?",
    "add": "Add {a} and {b}.|Add {a} and {b}|Add {a} to {b}.|What is {a} plus {b}?"
    "|What's {a} plus {b}?"
    "|{a}+{b}|{a} + {b}|{a} + {b} = ?|{a}+{b}=|What is {a} + {b}?|What is {a}+{b}?|What's {a}+{b}?"
    "|Sum of {a} and {b}|What is the sum of {a} and {b}?|Give me the sum of {a} and {b}."
    "|Sum {a} and {b}."
    "|How much is {a} plus {b}?|How much is {a} + {b}?|Calculate {a} + {b}.|Calculate {a} plus {b}."
    "|Compute {a}+{b}.|Compute the sum of {a} and {b}.|Please add {a} and {b}."
    "|Can you add {a} and {b}?"
    "|Add the numbers {a} and {b}.|Add up {a} and {b}.|{a} plus {b}|{a} and {b} added together"
    "|Tell me what {a} plus {b} is.|I need the sum of {a} and {b}.|Could you sum {a} and {b}?"
    "|Use the tool to add {a} and {b}.|What do {a} and {b} make together?"
    "|What do I get for {a} + {b}?"
    "|I have {a} apples and {b} pears. How many together?|Work out {a} + {b}|Find {a} plus {b}",
}
PAIR_ASKS = (
    "What is the weather in {x} and {y}?|Weather in {x} and {y}|weather in {x} and in {y}?"
    "|Tell me the weather in {x} and {y}.|How is the weather in {x} and {y}?"
    "|Compare the weather in {x} and {y}."
    "|Is it warmer in {x} or {y}?|Get the weather for {x} and {y}."
    "|What's the weather in {x} and in {y}?"
    "|Weather for {x} and {y} please"
).split("|")
TIME_PAIR_ASKS = (
    "What time is it in {x} and {y}?|Time in {x} and {y}|What's the time in {x} and in {y}?"
    "|Tell me the time in {x} and {y}.|Get the time for {x} and {y}."
    "|What is the time in {x} and {y}?"
).split("|")
BOTH_ASKS = (
    "What is the weather and the time in {x}?|Weather and time in {x}"
    "|Tell me the weather and time in {x}."
    "|How is the weather in {x} and what time is it there?"
    "|What's the weather in {x} and what time is it?"
    "|I need the weather and the time in {x}.|Get the weather and the time for {x}."
).split("|")
PLACELESS = {
    "weather": "What is the weather?|What's the weather like?|How is the weather?|Weather|Weather?"
    "|Is it raining?|Get the weather.|How warm is it?|What is the weather today?",
    "time": "What time is it?|What is the time?|What's the time?|Time?|Tell me the time."
    "|What time is it now?|Current time|Get the time.|Do you know what time it is?",
}
FOLLOW_UPS = (
    "And in {x}?|and in {x}|What about {x}?|And {x}?|How about {x}?|Now {x}.|The same for {x}."
    "|And for {x}?"
    "|{x}?|What about in {x}?|Then {x}."
).split("|")
STRANGERS = (
    "search_web query|send_email to,subject|get_stock_price symbol|multiply a,b"
    "|translate text,language"
    "|book_flight origin,destination|create_event title,date|get_news topic|play_music song"
    "|read_file path"
    "|write_file path,content|run_query sql|set_alarm time|convert_currency amount,currency"
    "|get_user id"
    "|list_files folder|turn_on_light room|order_pizza size,topping|get_recipe dish"
    "|random_number low,high"
    "|subtract a,b|divide a,b|find_restaurant city,cuisine|get_population country|define_word word"
).split("|")
SKIES = (
    "sunny|cloudy|rainy|clear|overcast|snow|fog|light rain|heavy rain|windy|partly cloudy|storm"
    "|drizzle"
    "|hail|clear sky|thunder|haze|mild|humid|dry"
).split("|")


class Tool(NamedTuple):
    """A schema, and what is needed to call it."""

    kind: str
    schema: Json
    name: str
    slots: tuple[str, ...]
    main: tuple[str, ...]
    choice: str
    options: tuple[str, ...]
    forced: bool


class Call(NamedTuple):
    """One call of a tool; `values` are what the question names."""

    tool: Tool
    values: tuple[Any, ...]
    arguments: Json


class Task(NamedTuple):
    """A question and the calls that it asks for."""

    question: str
    calls: tuple[Call, ...]


def pick(rng: Random, words: str) -> str:
    """One of the words split by bars."""
    return rng.choice(words.split("|"))


def _described(rng: Random, kind: str, about: str) -> Json:
    """A property of a schema, with or without a description."""
    described: Json = {"type": kind}
    if speech.chance(rng, 0.4):
        described["description"] = about
    if speech.chance(rng, 0.08):
        described["title"] = about.split()[-1].capitalize()
    return described


def _function(rng: Random, name: str, about: str, properties: Json, required: list[str]) -> Json:
    """The tool around its properties, in one of the spellings that clients send."""
    parameters: Json = {"type": "object", "properties": properties}
    if speech.chance(rng, 0.75):
        parameters["required"] = required
    if speech.chance(rng, 0.3):
        parameters["additionalProperties"] = False
    if speech.chance(rng, 0.05):
        parameters = {"title": f"{name}Arguments", **parameters}
    function: Json = {"name": name}
    if speech.chance(rng, 0.8):
        function["description"] = about
    function["parameters"] = parameters
    if speech.chance(rng, 0.15):
        function = (
            {"strict": True, **function}
            if speech.chance(rng, 0.3)
            else function | {"strict": speech.chance(rng, 0.7)}
        )
    if speech.chance(rng, 0.1):
        function = dict(sorted(function.items()))
    if speech.chance(rng, 0.03):
        return function
    return {"type": "function", "function": function}


def parameter(rng: Random) -> str:
    """A parameter's name that no list holds, so that names are copied from the schema."""
    parts = [rng.choice((speech.word, speech.plain))(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    if speech.chance(rng, 0.3):
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    return "_".join(parts)


def _options(rng: Random, kind: str) -> tuple[str, Json, tuple[str, ...]]:
    """A parameter with a fixed set of values: its name, property and values."""
    options = tuple(pick(rng, UNITS if kind == "weather" else FORMATS).split(","))
    slot = pick(rng, UNIT_SLOTS) if kind == "weather" else pick(rng, "format|style|clock")
    return slot, _described(rng, "string", "How to show it") | {"enum": list(options)}, options


def place_tool(rng: Random, kind: str) -> Tool:
    """A tool that asks for a place, `kind` being weather or time."""
    slot = parameter(rng) if speech.chance(rng, 0.3) else pick(rng, SLOTS[kind])
    about = pick(
        rng, f"The {slot}|The city|City name|Name of the place|A city, e.g. {speech.place(rng)}"
    )
    properties = [(slot, _described(rng, "string", about))]
    required, choice, forced = [slot], "", False
    options: tuple[str, ...] = ()
    if speech.chance(rng, 0.35):
        choice, described, options = _options(rng, kind)
        properties.append((choice, described))
        forced = speech.chance(rng, 0.2)
        required += [choice] if forced else []
    if speech.chance(rng, 0.12):
        properties.append(rng.choice(IDLE_SLOTS))
    if speech.chance(rng, 0.25):
        rng.shuffle(properties)
    name = pick(rng, NAMES[kind])
    schema = _function(rng, name, pick(rng, ABOUT[kind]), dict(properties), required)
    forced = forced and "required" in schema.get("function", schema)["parameters"]
    slots = tuple(key for key, _ in properties)
    return Tool(kind, schema, name, slots, (slot,), choice, options, forced)


def bare_tool(rng: Random) -> Tool:
    """A clock that takes no arguments."""
    name = pick(rng, NAMES["time"])
    schema = _function(rng, name, pick(rng, ABOUT["time"]), {}, [])
    return Tool("bare", schema, name, (), (), "", (), False)


def add_tool(rng: Random) -> Tool:
    """A tool that adds numbers."""
    name = pick(rng, NAMES["add"])
    number = rng.choice(("number", "number", "integer"))
    if speech.chance(rng, 0.06):
        slot = rng.choice(("numbers", "values", "terms"))
        properties: Json = {slot: {"type": "array", "items": {"type": number}}}
        schema = _function(rng, name, pick(rng, ABOUT["add"]), properties, [slot])
        return Tool("add", schema, name, (slot,), (slot,), "", (), False)
    main = tuple(pick(rng, PAIRS).split(","))
    if speech.chance(rng, 0.25):
        main = (f"{parameter(rng)}_1", parameter(rng))
    about = ("The first number", "The second number")
    described = [
        (key, _described(rng, number, text)) for key, text in zip(main, about, strict=True)
    ]
    if speech.chance(rng, 0.12):
        described.append(rng.choice(IDLE_SLOTS))
    schema = _function(rng, name, pick(rng, ABOUT["add"]), dict(described), list(main))
    return Tool("add", schema, name, tuple(key for key, _ in described), main, "", (), False)


def stranger(rng: Random) -> Tool:
    """A tool that no question here asks for."""
    name, slots = rng.choice(STRANGERS).split(" ")
    if speech.chance(rng, 0.3):
        name, slots = f"{speech.word(rng)}_{speech.word(rng)}", speech.word(rng)
    about = f"{name.replace('_', ' ').capitalize()}."
    properties = {key: _described(rng, "string", f"The {key}") for key in slots.split(",")}
    schema = _function(rng, name, about, properties, list(properties))
    return Tool("other", schema, name, tuple(properties), (), "", (), False)


def make_tool(rng: Random, kind: str) -> Tool:
    """A tool of this kind."""
    if kind == "add":
        return add_tool(rng)
    return stranger(rng) if kind == "other" else place_tool(rng, kind)


def toolbox(rng: Random, *needed: str) -> dict[str, Tool]:
    """One to four tools in any order, the needed kinds among them."""
    kinds = set(needed)
    kinds |= {kind for kind in ("weather", "time", "add") if speech.chance(rng, 0.35)}
    kinds |= {"other"} if not kinds or speech.chance(rng, 0.2) else set()
    order = sorted(kinds)
    rng.shuffle(order)
    return {kind: make_tool(rng, kind) for kind in order}


def schemas(box: dict[str, Tool]) -> list[Json]:
    """What the client sends as `tools`."""
    return [tool.schema for tool in box.values()]


def call(tool: Tool, values: Sequence[Any], option: str = "") -> Call:
    """The call with these values, its arguments in the order of the schema."""
    arguments: Json = {}
    if tool.kind == "add" and len(tool.main) == 1:
        return Call(tool, tuple(values), {tool.main[0]: list(values)})
    given = dict(zip(tool.main, values, strict=False))
    for slot in tool.slots:
        if slot in given:
            arguments[slot] = given[slot]
        elif slot == tool.choice and (option or tool.forced):
            arguments[slot] = option or tool.options[0]
    return Call(tool, tuple(values), arguments)


def number(rng: Random) -> int | float:
    """A whole number of one to five digits, a negative or a decimal one."""
    size = 10 ** rng.choice((1, 1, 2, 2, 3, 4, 5))
    value: int | float = rng.randrange(size)
    if speech.chance(rng, 0.15):
        value = round(value / 10 ** rng.choice((1, 2)), 2)
    return -value if value and speech.chance(rng, 0.1) else value


def _cased(rng: Random, form: str, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The form and its names, now and then in small letters or without an end mark."""
    if speech.chance(rng, 0.15):
        form = form.rstrip("?.!")
    if speech.chance(rng, 0.06):
        form = rng.choice(speech.OPENERS) + form
    if speech.chance(rng, 0.05):
        form += rng.choice(speech.CLOSERS)
    if speech.chance(rng, 0.15):
        return form.lower(), tuple(name.lower() for name in names)
    return form, names


def _spot(rng: Random, kind: str) -> str:
    return speech.zone(rng) if kind == "time" and speech.chance(rng, 0.1) else speech.place(rng)


def single(rng: Random, tool: Tool, form: str = "") -> Task:
    """A question for one call of this tool."""
    if tool.kind == "bare":
        form, _ = _cased(rng, pick(rng, PLACELESS["time"]), ())
        return Task(form, (call(tool, ()),))
    if tool.kind == "add":
        values = (number(rng), number(rng))
        form, _ = _cased(rng, form or pick(rng, ASKS["add"]), ())
        return Task(form.format(a=values[0], b=values[1]), (call(tool, values),))
    form, names = _cased(rng, form or pick(rng, ASKS[tool.kind]), (_spot(rng, tool.kind),))
    option, said = "", ""
    if tool.choice and speech.chance(rng, 0.45):
        option = rng.choice(tool.options)
        said = rng.choice((option, option, option.capitalize(), option.lower()))
        said = rng.choice(
            (f" in {said}", f" in {said}", f" ({said})", f" Use {said}.", f", {said}")
        )
    return Task(form.format(x=names[0]) + said, (call(tool, names, option),))


def double(rng: Random, box: dict[str, Tool]) -> Task:
    """A question for two calls in one turn."""
    both = "weather" in box and "time" in box
    if both and speech.chance(rng, 0.5):
        form, names = _cased(rng, rng.choice(BOTH_ASKS), (speech.place(rng),))
        calls = (call(box["weather"], names), call(box["time"], names))
        return Task(form.format(x=names[0]), calls)
    tool = box.get("weather") or box["time"]
    forms = PAIR_ASKS if tool.kind == "weather" else TIME_PAIR_ASKS
    form, names = _cased(rng, rng.choice(forms), (speech.place(rng), speech.place(rng)))
    return Task(form.format(x=names[0], y=names[1]), tuple(call(tool, (each,)) for each in names))


def call_text(made: Call) -> str:
    """The call as the model writes it."""
    body = json.dumps({"name": made.tool.name, "arguments": made.arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def calls_text(calls: tuple[Call, ...]) -> str:
    """Several calls as the model writes them."""
    return "\n".join(call_text(made) for made in calls)


def call_message(rng: Random, calls: tuple[Call, ...]) -> Json:
    """The assistant message with these calls, as clients send it back."""
    made = []
    for each in calls:
        compact = speech.chance(rng, 0.3)
        text = json.dumps(
            each.arguments, ensure_ascii=False, separators=(",", ":") if compact else None
        )
        function = {"name": each.tool.name, "arguments": text}
        made.append({"type": "function", "id": "call_0", "function": function})
    return {"role": "assistant", "content": None, "tool_calls": made}


def _weather_result(rng: Random) -> tuple[str, str]:
    """A result of a weather tool, and the words that the answer quotes."""
    sky, warmth = rng.choice(SKIES), rng.randint(-25, 45)
    if speech.chance(rng, 0.15):
        sky = " ".join(speech.word(rng) for _ in range(rng.randint(1, 3)))
    if speech.chance(rng, 0.35):
        pairs: list[tuple[str, Any]] = [(pick(rng, "temp|temperature|degrees|temp_c|t"), warmth)]
        if speech.chance(rng, 0.6):
            pairs.append((pick(rng, "sky|condition|conditions|weather|description|summary"), sky))
        if speech.chance(rng, 0.3):
            pairs.append((pick(rng, "unit|wind|humidity|feels_like"), rng.randint(0, 99)))
        rng.shuffle(pairs)
        return json.dumps(dict(pairs)), ", ".join(f"{key} {value}" for key, value in pairs)
    forms = (
        "{n} degrees and {s}|{n} degrees and {s}|{s}, {n}°C|{n}°C, {s}|{n} C|{s}|{n}|{n}F and {s}"
        "|{s} with {n} degrees|{s} and {n} degrees|{n} degrees, {s}, light wind|error: {s}|{n}°F"
    )
    text = pick(rng, forms).format(n=warmth, s=sky)
    return text + ("." if speech.chance(rng, 0.1) else ""), text


def _time_result(rng: Random) -> tuple[str, str]:
    """A result of a clock, and the words that the answer quotes."""
    hour, minute, day = rng.randrange(24), rng.randrange(60), rng.randint(10, 28)
    text = rng.choice(
        (
            f"{hour:02}:{minute:02}",
            f"{hour:02}:{minute:02}",
            f"{hour % 12 + 1}:{minute:02} {rng.choice(('AM', 'PM'))}",
            f"{hour:02}:{minute:02}:{rng.randint(10, 59)}",
            f"20{day}-0{rng.randint(1, 9)}-{day}T{hour:02}:{minute:02}:00Z",
            f"20{day}-1{rng.randint(0, 2)}-{day} {hour:02}:{minute:02}",
        )
    )
    if speech.chance(rng, 0.25):
        return json.dumps({pick(rng, "time|now|local_time|current_time|datetime"): text}), text
    return text, text


def _sum_result(rng: Random, values: tuple[Any, ...]) -> tuple[str, str]:
    """A result of an addition; now and then a wrong one, so that it is quoted and not guessed."""
    total = round(sum(values), 2) if values and speech.chance(rng, 0.7) else number(rng)
    if speech.chance(rng, 0.25):
        return json.dumps({pick(rng, "result|sum|total|value|answer"): total}), str(total)
    return str(total), str(total)


def result(rng: Random, made: Call) -> tuple[str, str]:
    """What the tool returns, and the sentence that passes it on."""
    if made.tool.kind == "add":
        text, said = _sum_result(rng, made.values)
        return text, f"The sum is {said}."
    if made.tool.kind == "bare":
        text, said = _time_result(rng)
        return text, f"The time is {said}."
    if made.tool.kind == "time":
        text, said = _time_result(rng)
        return text, f"The time in {made.values[0]} is {said}."
    if made.tool.kind == "weather":
        text, said = _weather_result(rng)
        return text, f"The weather in {made.values[0]}: {said}."
    said = " ".join(speech.word(rng) for _ in range(rng.randint(1, 5)))
    return said, f"The result: {said}."


def results(rng: Random, calls: tuple[Call, ...]) -> tuple[list[Json], str]:
    """The tool messages for these calls, and the answer that quotes them."""
    made = [result(rng, each) for each in calls]
    messages = [{"role": "tool", "tool_call_id": "call_0", "content": text} for text, _ in made]
    return messages, " ".join(said for _, said in made)
