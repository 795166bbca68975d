"""`portico bench`: a load, its figures, and servers side by side."""

import asyncio
import json
import os
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from adapters.bench.client import BadServer, Endpoint, Server, first_model
from adapters.bench.prompts import TOKENS_PER_WORD, Prompts
from adapters.bench.report import Report, as_json, tables
from adapters.bench.runner import Asking, Course, run_stage, side_by_side, tokens_per_word
from adapters.bench.scenarios import SCENARIOS, Stage, Workload, warm_up
from adapters.cli.failing import FAILED, MISUSED, fail

# Unless --rounds says how many.
_ROUNDS_ALONE, _ROUNDS_SIDE_BY_SIDE = 1, 3


Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, and how."""

    scenario: str
    knobs: Mapping[str, Any]  # of Workload; None leaves one to the scenario
    endpoint: Endpoint
    spread: float
    prompt_file: Path | None
    tokens_per_word: float | None  # None: measured
    seed: int | None  # None: another one each time
    extra: str | None  # JSON
    timeout: float
    rounds: int | None
    warm_up: bool
    between_turns: str | None


@dataclass(frozen=True, slots=True)
class Output:
    json: str | None
    plot: Path | None
    allow_errors: bool


def run(servers: Mapping[str, Any], load: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    """Ends with 1 when a request failed, with 2 when it can't begin."""
    wanted = Output(**output)
    draw = _plotter() if wanted.plot else None
    console = Console(stderr=wanted.json == "-")  # a pipe gets the JSON alone
    try:
        report = asyncio.run(_measure(_servers(**servers), Load(**load)))
    except BadServer as error:
        fail(str(error), MISUSED)
    for table in tables(report):
        console.print(table, "")
    for remark in _remarks(report):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)
    try:
        if wanted.json:
            _write_json(report, wanted.json)
        if wanted.plot and draw:
            draw(report, wanted.plot)
    except OSError as error:
        fail(f"the results can't be written: {error}", MISUSED)
    if report.failures and not wanted.allow_errors:
        raise typer.Exit(FAILED)


def _servers(
    url: str, against: Sequence[str], model: str | None, api_key: str | None
) -> tuple[Server, ...]:
    """Raises BadServer. The key is for `url` alone; others have theirs in their address."""
    first = Server.parse(url, model=model or "", api_key=api_key or "")
    servers = (first, *(Server.parse(text, model=model or "") for text in against))
    if len({server.name for server in servers}) < len(servers):
        raise BadServer("two servers have the same name: write NAME=URL")
    return servers


async def _measure(servers: tuple[Server, ...], load: Load) -> Report:
    """Raises BadServer when one can't be asked at all."""
    scenario, workload = SCENARIOS[load.scenario], _workload(load)
    asking = Asking(load.endpoint, load.timeout, _extra(load.extra))
    texts = _texts(load.prompt_file)
    seed = secrets.randbelow(1_000_000) if load.seed is None else load.seed
    rounds = load.rounds or (_ROUNDS_SIDE_BY_SIDE if len(servers) > 1 else _ROUNDS_ALONE)
    command = _command(load.between_turns) if load.between_turns else None
    with _progress() as say:
        say("looking at the servers")
        servers = tuple([await _with_model(server, load.timeout) for server in servers])
        rate = load.tokens_per_word or await tokens_per_word(servers[0], asking, str(seed))
        rate = rate or TOKENS_PER_WORD

        def prompts(row: str) -> Prompts:
            return Prompts(f"{seed}/{row}", tokens_per_word=rate, spread=load.spread, texts=texts)

        def plan(number: int) -> tuple[Stage, ...]:
            return scenario.plan(workload, prompts(str(number)))

        if load.warm_up:
            await _warm_up(servers, warm_up(workload, prompts("warm-up")), asking, say)
        course = Course(rounds, say, command)
        results = await side_by_side(servers, plan, asking, course)
    settings = {
        **asdict(workload),
        "endpoint": load.endpoint,
        "spread": load.spread,
        "prompt_file": str(load.prompt_file) if load.prompt_file else None,
        "tokens_per_word": rate,
        "seed": seed,
        "extra": asking.extra,
        "rounds": rounds,
    }
    return Report(load.scenario, settings, servers, results)


@contextmanager
def _progress() -> Iterator[Say]:
    """What is under way: a line that changes on a terminal, a line each in a log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: typer.echo(line, err=True)
        return
    with console.status("") as status:
        yield lambda line: status.update(Text(line))


def _workload(load: Load) -> Workload:
    try:
        return SCENARIOS[load.scenario].workload(load.knobs)
    except ValueError as error:
        flag = "--" + str(error).replace("_", "-")
        fail(f"{flag} would change nothing in {load.scenario}", MISUSED)


async def _with_model(server: Server, patience: float) -> Server:
    return server if server.model else replace(server, model=await first_model(server, patience))


async def _warm_up(
    servers: Sequence[Server], stages: Sequence[Stage], asking: Asking, say: Say
) -> None:
    for server in servers:
        for stage in stages:
            say(f"warm-up: {stage.concurrency} at once, {server.name}")
            await run_stage(server, stage, asking, {})


def _command(line: str) -> Callable[[Server], Any]:
    """Runs it, and waits for it; the server it is run for is in its environment."""

    async def run_it(server: Server) -> None:
        named = {"BENCH_SERVER": server.name, "BENCH_URL": server.url}
        try:
            process = await asyncio.create_subprocess_exec(
                *shlex.split(line), env=os.environ | named
            )
        except (OSError, ValueError) as error:
            fail(f"--between-turns: {error}", MISUSED)
        if code := await process.wait():
            fail(f"--between-turns: `{line}` ended with {code}", MISUSED)

    return run_it


def _extra(text: str | None) -> dict[str, Any]:
    try:
        extra = json.loads(text or "{}")
    except ValueError as error:
        fail(f"--extra is not JSON: {error}", MISUSED)
    if not isinstance(extra, dict):
        fail("--extra must be a JSON object", MISUSED)
    return extra


def _texts(file: Path | None) -> list[str]:
    """One prompt a line; in a .jsonl file each is a JSON string, so that it can have lines."""
    if file is None:
        return []
    try:
        lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
        texts = [json.loads(line) for line in lines] if file.suffix == ".jsonl" else lines
    except (OSError, ValueError) as error:
        fail(f"--prompt-file: {error}", MISUSED)
    if not texts or not all(isinstance(text, str) for text in texts):
        fail(f"--prompt-file: {file} must have a prompt in each line", MISUSED)
    return texts


def _plotter() -> Callable[[Report, Path], None]:
    """Looked for before the run, lest the figures of an hour end in a missing package."""
    try:
        draw: Callable[[Report, Path], None] = import_module("adapters.bench.plot").draw
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("adapters"):
            raise
        fail("--plot needs matplotlib: install portico-mlx[bench]", MISUSED)
    return draw


def _remarks(report: Report) -> list[str]:
    seed, rounds = report.settings["seed"], report.settings["rounds"]
    remarks = [f"Seed {seed}, {rounds} round{'s' if rounds > 1 else ''}."]
    if report.uncounted:
        remarks.append(
            f"{report.uncounted} replies had no usage: a chunk was taken for a token there."
        )
    remarks += [
        f"The answers differ in length, so don't compare tokens/s ({stage})."
        for stage in report.uneven_stages()
    ]
    return [*remarks, *(f"Failed: {line}" for line in report.failure_lines())]


def _write_json(report: Report, target: str) -> None:
    text = json.dumps(as_json(report), indent=2)
    if target == "-":
        typer.echo(text)
    else:
        Path(target).write_text(text + "\n", "utf-8")
