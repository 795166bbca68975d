"""Portico, mlx_lm.server and BatchGenerator side by side, with a model of random weights.

python -m benchmarks.engines
python -m benchmarks.engines --shape qwen3-0.6b --bits 4
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adapters.bench.client import Server
from adapters.bench.figures import sample
from adapters.bench.prompts import Prompts
from adapters.bench.runner import Asking, run_stage
from adapters.bench.scenarios import SCENARIOS, Stage, warm_up
from benchmarks.batch_generator import InProcess, in_process
from benchmarks.models import SHAPES
from benchmarks.processes import free_port, running

_PORTICO, _MLX_LM, _DIRECT = "Portico", "mlx_lm.server", "BatchGenerator"


@contextmanager
def portico(model: Path, *arguments: str) -> Iterator[Server]:
    port = free_port()
    command = ("-m", "adapters.cli.main", "serve", "--model", str(model), "--port", str(port))
    with running(*command, "--log-level", "warning", *arguments, port=port):
        yield Server(_PORTICO, f"http://127.0.0.1:{port}/v1", model.name)


@contextmanager
def mlx_lm_server(model: Path) -> Iterator[Server]:
    """As many requests at once as Portico takes."""
    port = free_port()
    command = ("-m", "mlx_lm", "server", "--model", str(model), "--port", str(port))
    widths = ("--decode-concurrency", "32", "--prompt-concurrency", "8")
    with running(*command, *widths, "--log-level", "WARNING", port=port, quiet=True):
        yield Server(_MLX_LM, f"http://127.0.0.1:{port}/v1", "default_model")


Rates = dict[str, dict[str, list[float]]]  # tokens per second: by stage, by server, one a round


async def throughput(servers: list[Server], direct: InProcess, given: argparse.Namespace) -> Rates:
    """Each stage is told as it comes, so that a run that is cut short is not lost."""
    scenario = SCENARIOS["throughput"]
    workload = scenario.workload({"concurrency": given.concurrency})
    asking, rates = Asking(), Rates()
    for number in range(-1, given.rounds):
        prompts = Prompts(f"{given.seed}/{number}", tokens_per_word=1.0, spread=given.spread)
        stages = scenario.plan(workload, prompts) if number >= 0 else warm_up(workload, prompts)
        for stage in stages:
            for server in servers:
                replies = await run_stage(server, stage, asking, {})
                told = sample([reply for _, reply in replies])
                if told.failures:
                    raise SystemExit(f"{server.name}: {told.details}")
                _note(rates, number, stage, server.name, told.output_tokens / told.seconds)
            _note(rates, number, stage, _DIRECT, _directly(direct, stage))
            if given.json and number >= 0:
                given.json.write_text(json.dumps(rates))
    return rates


def _note(rates: Rates, number: int, stage: Stage, server: str, rate: float) -> None:
    """number: the round's; the warm-up's is negative, and doesn't count."""
    name = stage.name if number < 0 else f"round {number + 1}, {stage.name}"
    print(f"{name:28} {server:15} {rate:9,.0f}", file=sys.stderr, flush=True)
    if number >= 0:
        rates.setdefault(stage.name, {}).setdefault(server, []).append(rate)


def _directly(direct: InProcess, stage: Stage) -> float:
    texts = [request.messages[-1][1] for request in stage.requests]
    length = stage.requests[0].max_tokens
    return len(texts) * length / direct.seconds(texts, stage.concurrency, length)


def show(rates: Rates) -> None:
    """The medians of the rounds; the ratios are medians of each round's, with their range."""
    print(f"{'tokens/s':12} {_PORTICO:>9} {_MLX_LM:>15} {'ratio':>20} {_DIRECT:>15} {'ratio':>20}")
    for stage, by_server in rates.items():
        cells = [f"{statistics.median(by_server[_PORTICO]):9,.0f}"]
        for other, width in ((_MLX_LM, 15), (_DIRECT, 15)):
            pairs = zip(by_server[_PORTICO], by_server[other], strict=True)
            ratios = [mine / theirs for mine, theirs in pairs]
            span = f"({min(ratios):.2f} to {max(ratios):.2f})"
            cells.append(f"{statistics.median(by_server[other]):{width},.0f}")
            cells.append(f"{statistics.median(ratios):5.2f} {span:>14}")
        print(f"{stage:12} {' '.join(cells)}", flush=True)


def make_model(folder: Path, shape: str, bits: int | None) -> Path:
    """By a process of its own, which gives the memory back."""
    command = [sys.executable, "-m", "benchmarks.models", shape, str(folder)]
    subprocess.run([*command, *(("--bits", str(bits)) if bits else ())], check=True)  # noqa: S603
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--concurrency", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spread", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write every round's figures")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = make_model(folder / given.shape, given.shape, given.bits)
        servers = [
            stack.enter_context(portico(model)),
            stack.enter_context(mlx_lm_server(model)),
        ]
        direct = stack.enter_context(in_process(model))
        show(asyncio.run(throughput(servers, direct, given)))


if __name__ == "__main__":
    main()
