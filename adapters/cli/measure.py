"""`portico bench`, as Typer has it. Light to import."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from adapters.cli.options import run

app = typer.Typer()


BenchScenario = Literal[
    "throughput", "shared-prefix", "multi-turn", "long-among-streams", "mixed-sampling"
]


def _count(help: str) -> Any:
    return typer.Option(min=1, help=help)


Scenario = Annotated[BenchScenario, typer.Argument(help="What is asked; docs/bench.md tells.")]
Server = Annotated[str, typer.Option(help="The server: URL, or NAME=URL#MODEL.")]
Others = Annotated[
    list[str] | None, typer.Option(help="Another server to measure beside it; repeatable.")
]
ServedModel = Annotated[
    str | None, typer.Option("--model", "-m", help="Default: the first one listed.")
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="PORTICO_BENCH_API_KEY", help="Sent to --url alone.")
]
LongPrompt = Annotated[int | None, _count("long-among-streams: the prompt that comes amid them.")]
Spread = Annotated[
    float, typer.Option(min=0, max=0.95, help="Prompts are longer or shorter by up to this part.")
]
TokensPerWord = Annotated[
    float | None, typer.Option(min=0.1, help="Default: what the server counts.")
]
BetweenTurns = Annotated[str | None, typer.Option(help="A command to run before each later turn.")]
AllowErrors = Annotated[
    bool, typer.Option("--allow-errors", help="Failed requests are no failure.")
]


def _widths(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1 or len(set(widths)) < len(widths):
        raise typer.BadParameter("as in 1,8,32", param_hint="--concurrency")
    return widths


@app.command()
def bench(  # noqa: PLR0913, PLR0917 - one for each flag
    scenario: Scenario = "throughput",
    url: Server = "portico=http://127.0.0.1:8000/v1",
    against: Others = None,
    model: ServedModel = None,
    api_key: ApiKey = None,
    endpoint: Literal["chat", "completions"] = "chat",
    concurrency: Annotated[str | None, typer.Option(help="Streams at once, as in 1,8,32.")] = None,
    requests: Annotated[int | None, _count("In a stage.")] = None,
    prompt_tokens: Annotated[int | None, _count("The length of a (first) prompt.")] = None,
    output_tokens: Annotated[int | None, _count("The most that an answer may have.")] = None,
    prefix_tokens: Annotated[int | None, _count("shared-prefix: what all have in common.")] = None,
    turns: Annotated[int | None, _count("multi-turn: turns of a chat.")] = None,
    turn_tokens: Annotated[int | None, _count("multi-turn: a later prompt.")] = None,
    long_tokens: LongPrompt = None,
    spread: Spread = 0.0,
    prompt_file: Annotated[Path | None, typer.Option(help="Real prompts, one a line.")] = None,
    tokens_per_word: TokensPerWord = None,
    seed: Annotated[int | None, typer.Option(help="The same prompts again.")] = None,
    extra: Annotated[str | None, typer.Option(help="JSON that is added to every request.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request.")] = 600.0,
    rounds: Annotated[int | None, _count("Default: 1; 3 with --against.")] = None,
    warm_up: Annotated[bool, typer.Option(help="Ask a little before measuring.")] = True,
    between_turns: BetweenTurns = None,
    json: Annotated[str | None, typer.Option(help="A file for all figures; - for stdout.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A PNG file; needs matplotlib.")] = None,
    allow_errors: AllowErrors = False,
) -> None:
    """Measure any OpenAI-compatible server, or several side by side."""
    run("bench")(
        servers={"url": url, "against": against or (), "model": model, "api_key": api_key},
        load={
            "scenario": scenario,
            "knobs": {
                "concurrency": _widths(concurrency),
                "requests": requests,
                "prompt_tokens": prompt_tokens,
                "output_tokens": output_tokens,
                "prefix_tokens": prefix_tokens,
                "turns": turns,
                "turn_tokens": turn_tokens,
                "long_tokens": long_tokens,
            },
            "endpoint": endpoint,
            "spread": spread,
            "prompt_file": prompt_file,
            "tokens_per_word": tokens_per_word,
            "seed": seed,
            "extra": extra,
            "timeout": timeout,
            "rounds": rounds,
            "warm_up": warm_up,
            "between_turns": between_turns,
        },
        output={"json": json, "plot": plot, "allow_errors": allow_errors},
    )
