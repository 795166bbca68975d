"""Half an hour of everything at once on real MLX, and whether anything grows.

    python -m benchmarks.soak --minutes 30 --json soak.json --plot soak.png

Three models in room for two; chats and completions, streaming and not, greedy and sampled, with
schemas, several choices, refused ones, and clients that leave amid an answer. Every few minutes
all stop, and the server has to be idle: no lease, nobody waiting.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from matplotlib.figure import Figure

from adapters.bench.prompts import WORDS
from benchmarks.engines import make_model
from benchmarks.processes import Server, free_port, running

_MODELS = ("one", "two", "three")
_SWITCH, _STRAY = 0.02, 0.05  # of the requests: to another model from now on, or just this once
_SAMPLE_EVERY = 5.0  # seconds
_PAUSE_EVERY = 180.0  # seconds
_IDLE_WITHIN = 10.0  # seconds
_SCHEMA = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}


@dataclass(frozen=True, slots=True)
class Sample:
    """seconds: since the start. resident: MB."""

    seconds: float
    resident: float
    threads: int
    descriptors: int
    models: int
    answered: int


class Load:
    """Clients that ask, and now and then leave."""

    def __init__(self, url: str, seed: int, clients: int, rest: float) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=120)
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._clients = clients
        self._rest = rest
        self._model = _MODELS[0]
        self.outcomes: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Until then; all have ended when it returns."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._clients):
                tasks.create_task(self._keep_asking(until))

    async def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._client.get("/api/v1/status")).json()
        return answer

    async def _keep_asking(self, until: float) -> None:
        while time.monotonic() < until:
            await self._ask()
            await asyncio.sleep(self._chance.uniform(0, 2 * self._rest))

    async def _ask(self) -> None:
        chance = self._chance
        if chance.random() < _SWITCH:
            self._model = chance.choice(_MODELS)
        text = " ".join(chance.choices(WORDS, k=chance.randint(1, 200)))
        body: dict[str, Any] = {
            "model": self._model if chance.random() > _STRAY else chance.choice(_MODELS),
            "messages": [{"role": "user", "content": text}],
            "max_tokens": chance.randint(1, 60),
            "temperature": chance.choice([0, 0.7, 1.2]),
            **chance.choice(_EXTRAS),
        }
        if not body.get("stream"):
            answer = await self._client.post("/v1/chat/completions", json=body)
            self.outcomes[str(answer.status_code)] += 1
            return
        leaves_after = chance.choice([None, None, 0, 1, 5, 20])
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = 0
            async for _ in answer.aiter_lines():
                lines += 1
                if leaves_after is not None and lines > leaves_after:
                    self.outcomes["left"] += 1
                    return
        self.outcomes[str(answer.status_code)] += 1


_EXTRAS: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"stream": True, "top_p": 0.9, "seed": 3},
    {"stream": True, "logprobs": True, "top_logprobs": 3},
    {"n": 3, "frequency_penalty": 0.4},
    {"stop": [" the", "w"]},
    {
        "stream": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}},
    },
    {"top_k": -7},  # refused
]


async def soak(server: Server, minutes: float, load: Load) -> tuple[list[Sample], list[str]]:
    """The samples, and what was wrong."""
    began, samples, faults = time.monotonic(), [], []
    process = psutil.Process(server.pid)

    async def watch() -> None:
        while True:
            await asyncio.sleep(_SAMPLE_EVERY)
            status = await load.status()
            samples.append(
                Sample(
                    round(time.monotonic() - began, 1),
                    round(process.memory_info().rss / 1e6, 1),
                    process.num_threads(),
                    process.num_fds(),
                    len(status["residents"]),
                    sum(load.outcomes.values()),
                )
            )

    watching = asyncio.create_task(watch())
    while (left := minutes * 60 - (time.monotonic() - began)) > 0:
        await load.run(min(left, _PAUSE_EVERY))
        if busy := await _not_idle(load):
            faults.append(f"{time.monotonic() - began:.0f} s: {busy}")
        last = samples[-1] if samples else None
        print(f"{time.monotonic() - began:6.0f} s {last} {dict(load.outcomes)}", flush=True)
    watching.cancel()
    return samples, faults + [f"{n} x {c}" for c, n in load.outcomes.items() if c[0] == "5"]


async def _not_idle(load: Load) -> str:
    """What is still going on after everybody has gone; nothing, as it should be."""
    deadline = time.monotonic() + _IDLE_WITHIN
    while True:
        status = await load.status()
        busy = [r["id"] for r in status["residents"] if r["leases"]]
        if not busy and not status["waiting"]:
            return ""
        if time.monotonic() > deadline:
            return f"leases of {busy}, {status['waiting']} waiting"
        await asyncio.sleep(0.05)


def growth(samples: list[Sample]) -> float:
    """MB an hour, by least squares over the second half: models and caches have filled by then."""
    half = samples[len(samples) // 2 :]
    slope, _ = statistics.linear_regression(
        [one.seconds for one in half], [one.resident for one in half]
    )
    return slope * 3600


def draw(samples: list[Sample], file: Path) -> None:
    figure = Figure(figsize=(9, 6))
    minutes = [one.seconds / 60 for one in samples]
    panels = {
        "resident memory, MB": [one.resident for one in samples],
        "threads": [one.threads for one in samples],
        "file descriptors": [one.descriptors for one in samples],
        "models in memory": [one.models for one in samples],
    }
    for axes, (title, values) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.plot(minutes, values, linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes", fontsize=8)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, format="png", dpi=110)


@contextmanager
def portico(folder: Path) -> Iterator[Server]:
    """With three models of 2.2 MB, of which two fit with their caches."""
    port = free_port()
    models = [argument for name in _MODELS for argument in ("--model", str(folder / name))]
    with running(
        *("-m", "adapters.cli.main", "serve", "--port", str(port), "--log-level", "error", *models),
        port=port,
        environment={
            "PORTICO_MEMORY_BUDGET_GB": "0.09",
            "PORTICO_CONTEXT_LENGTH": "2048",
            "PORTICO_KV_CONCURRENCY": "16",
            "HF_HOME": str(folder / "hub"),
        },
    ) as server:
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--rest", type=float, default=0.5, help="seconds between two requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in _MODELS:
            make_model(folder / model, "small", None)
        with portico(folder) as server:
            url = f"http://127.0.0.1:{server.port}"
            load = Load(url, given.seed, given.clients, given.rest)
            samples, faults = asyncio.run(soak(server, given.minutes, load))
    print(f"{growth(samples):+.1f} MB an hour; {faults or 'nothing was wrong'}")
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in samples]) + "\n")
    if given.plot:
        draw(samples, given.plot)
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
