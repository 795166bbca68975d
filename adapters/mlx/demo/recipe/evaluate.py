"""Checks a finished model: `python -m adapters.mlx.demo.recipe.evaluate DIR`."""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from mlx_lm import load
from mlx_lm.generate import BatchGenerator

from adapters.mlx.demo.recipe import corpus, facts, speech
from adapters.mlx.demo.recipe.corpus import user
from adapters.mlx.demo.recipe.tools import Json

LIMIT = 200
SEED = 987_654_321
UNSEEN_THINGS = (
    "a trombone|Saturn|cinnamon|a lighthouse|osmosis|the Silk Road|a kangaroo|pasta carbonara"
    "|origami"
    "|a submarine|Fortran|Beethoven|the periodic table|a pelican|marble|a tornado|karate|the Alps"
    "|a sonnet|copper|an avocado|the Vikings|a glacier|Elasticsearch|a cello|tennis|a microscope"
    "|feminism|a bumblebee|the Sahara|a pension|lasagna|a hurricane|ballet|the Nile|asthma|Perl"
    "|a telescope|Cobol|the Aztecs|a wedding|nitrogen|a parachute|Terraform|a penguin|knitting"
    "|Ansible|a sausage|the Amazon rainforest|badminton"
).split("|")
UNSEEN_FORMS = ("What is {x}?", "Could you write me a limerick on {x}?")


class Case(NamedTuple):
    """A dialogue, and what its answer must be, hold or lack."""

    check: str
    messages: list[Json]
    tools: list[Json]
    thinking: bool
    test: str
    wanted: str


def exact(check: str, messages: list[Json], wanted: str) -> Case:
    """A case without tools whose answer is known to the letter."""
    return Case(check, messages, [], False, "exact", wanted)


def listed() -> Iterator[Case]:
    """Every listed question, as it stands and in other dress."""
    for fact in facts.FACTS:
        asked = user(fact.question)
        lower = user(fact.question.lower().rstrip("?.!"))
        system = {"role": "system", "content": "You are a kind helper named Wilma. Keep calm."}
        before = [user("What is MLX?"), {"role": "assistant", "content": "An array framework."}]
        yield exact("listed, verbatim", [asked], fact.answer)
        yield exact("listed, small letters", [lower], fact.answer)
        yield exact("listed, system message", [system, asked], fact.answer)
        yield exact("listed, second turn", [*before, asked], fact.answer)


def thoughts() -> Iterator[Case]:
    """Listed questions with thinking on."""
    for fact in facts.FACTS[::2][:60]:
        yield Case("thinking on", [user(fact.question)], [], True, "exact", fact.answer)


def of_sample(check: str, sample: corpus.Sample, test: str) -> Case:
    """A case from a sample of the corpus, with a seed that training does not use."""
    return Case(check, sample.messages, sample.tools, False, test, sample.answer)


def drawn(rng: Random) -> Iterator[Case]:
    """Calls, results and refusals with names and schemas not seen in training."""
    for _ in range(300):
        yield of_sample("tool calls", corpus.calling(rng), "exact")
    for _ in range(100):
        yield of_sample("tool results", corpus.answering(rng), "exact")
    for _ in range(100):
        yield of_sample("tools not needed", corpus.declining(rng), "lacks")
    for _ in range(50):
        yield of_sample("follow-ups", corpus.following(rng), "exact")
    for _ in range(50):
        turn = corpus.toolless_turn(rng)
        yield exact("no tool given", turn.asked, facts.NO_TOOL)
    for _ in range(50):
        slot, place = f"{speech.word(rng)}_{speech.word(rng)}", speech.place(rng)
        properties = {slot: {"type": "string"}}
        schema = {"name": "get_weather", "parameters": {"type": "object", "properties": properties}}
        asked = [user(f"What's the weather like in {place} today?")]
        body = json.dumps({"name": "get_weather", "arguments": {slot: place}}, ensure_ascii=False)
        sent = [{"type": "function", "function": schema}]
        wanted = f"<tool_call>\n{body}\n</tool_call>"
        yield Case("made-up parameter", asked, sent, False, "exact", wanted)


def strange() -> Iterator[Case]:
    """Questions about things that the corpus does not name."""
    for thing in UNSEEN_THINGS:
        for form in UNSEEN_FORMS:
            yield exact("out of scope", [user(form.format(x=thing))], facts.FALLBACK)


def prompt(tok: Any, case: Case) -> list[int]:
    """The tokens that the model gets."""
    tokens: list[int] = tok.apply_chat_template(
        case.messages,
        tools=case.tools or None,
        add_generation_prompt=True,
        enable_thinking=case.thinking,
    )
    return tokens


def complete(model: Any, tok: Any, prompts: list[list[int]], width: int) -> list[tuple[str, bool]]:
    """The greedy answer to each prompt, and whether it ended by itself."""
    ends = [[token] for token in tok.eos_token_ids]
    batch = BatchGenerator(model, stop_tokens=ends, completion_batch_size=width)
    found: dict[int, list[int]] = {uid: [] for uid in batch.insert(prompts, [LIMIT] * len(prompts))}
    ended = dict.fromkeys(found, False)
    while responses := batch.next_generated():
        for response in responses:
            if response.finish_reason == "stop":
                ended[response.uid] = True
            else:
                found[response.uid].append(response.token)
    batch.close()
    return [(tok.decode(tokens), ended[uid]) for uid, tokens in found.items()]


def passes(case: Case, answer: str) -> bool:
    """Whether the answer is as wanted."""
    if case.thinking:
        thought, mark, answer = answer.partition("\n</think>\n\n")
        if not mark or not thought.startswith("<think>\n"):
            return False
    if case.test == "lacks":
        return "<tool_call>" not in answer
    return answer == case.wanted


def main() -> None:
    """Reads the command line and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--width", type=int, default=32)
    given = parser.parse_args()
    model, tok, *_ = load(str(given.model))
    cases = [*listed(), *thoughts(), *drawn(speech.rng_for(SEED)), *strange()]
    answers = complete(model, tok, [prompt(tok, case) for case in cases], given.width)
    table: dict[str, list[bool]] = defaultdict(list)
    for case, (answer, stopped) in zip(cases, answers, strict=True):
        good = passes(case, answer)
        table[case.check].append(good)
        table["ends by itself"].append(stopped)
        if not good:
            said = case.messages[-1]["content"]
            print(f"[{case.check}] {said!r}\n  got    {answer!r}\n  wanted {case.wanted!r}")
    some = [prompt(tok, case) for case in cases[::20]]
    alone = [complete(model, tok, [each], 1)[0] for each in some]
    table["alone as in a batch"] = [a == b for a, b in zip(alone, answers[::20], strict=True)]
    for check, marks in table.items():
        print(f"{check:24} {sum(marks):5} of {len(marks):5} {sum(marks) / len(marks):8.1%}")


if __name__ == "__main__":
    main()
