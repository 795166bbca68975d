"""A stream or a few, with and without a draft model, side by side.

python -m benchmarks.speculation
python -m benchmarks.speculation --shape qwen3-4b --draft-layers 3 --bits 4

The draft is the first layers of its target, and what the other layers add is multiplied by
`--difference`: the more, the less often the draft is right. At 0 it always is, at 1 hardly ever.
Answers are sampled, because greedy ones of random weights soon repeat a word for ever.
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
from typing import Any

import httpx
import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import _get_classes, quantize_model, save_model

from adapters.bench.client import Server
from adapters.bench.figures import sample
from adapters.bench.prompts import Prompts
from adapters.bench.runner import Asking, run_stage
from adapters.bench.scenarios import Request, Stage
from benchmarks.models import SHAPES, write_tokenizer
from benchmarks.processes import free_port, running

_WITHOUT, _WITH = "without", "with"
_SAMPLING = {"temperature": 0.7, "top_k": 20}
_COUNTED = "portico_spec_decode_num_{}_tokens_total"


def make_pair(
    folder: Path, shape: str, draft_layers: int, difference: float, bits: int | None
) -> None:
    """Writes the models `target` and `draft`, of random weights in bfloat16 or quantised."""
    config = dict(SHAPES[shape])
    target, draft = _network(config), _network(config | {"num_hidden_layers": draft_layers})
    for layer in target.layers[draft_layers:]:
        for added in (layer.self_attn.o_proj, layer.mlp.down_proj):
            added.weight = (added.weight * difference).astype(mx.bfloat16)
    weights = dict(tree_flatten(target.parameters()))
    draft.load_weights([(name, weights[name]) for name, _ in tree_flatten(draft.parameters())])
    for name, network in (("target", target), ("draft", draft)):
        written = config | {"num_hidden_layers": len(network.layers)}
        if bits:
            network, written = quantize_model(network, written, group_size=64, bits=bits)
        (folder / name).mkdir(parents=True)
        save_model(folder / name, network)
        (folder / name / "config.json").write_text(json.dumps(written))
        write_tokenizer(folder / name, config["vocab_size"])


def _network(config: dict[str, Any]) -> Any:
    mx.random.seed(7)
    model_class, args_class = _get_classes(config)
    network = model_class(args_class.from_dict(config))
    network.update(tree_map(lambda array: array.astype(mx.bfloat16), network.parameters()))
    return network


@contextmanager
def portico(folder: Path, name: str, guesses: int) -> Iterator[Server]:
    port = free_port()
    config = folder / f"{name}.toml"
    own = f'draft_model = "draft"\nnum_draft_tokens = {guesses}\n' if name == _WITH else ""
    config.write_text(
        f'available_models = ["{folder}"]\nprompt_lookup_tokens = 0\n[models.target]\n{own}'
    )
    command = ("-m", "adapters.cli.main", "serve", "--config", str(config), "--port", str(port))
    with running(*command, "--log-level", "warning", port=port):
        yield Server(name, f"http://127.0.0.1:{port}/v1", "target")


def counted(server: Server) -> tuple[float, float]:
    """Guesses so far, and those that were right."""
    lines = httpx.get(server.url.removesuffix("/v1") + "/metrics").text.splitlines()
    drafted, accepted = (
        sum(float(line.split()[-1]) for line in lines if line.startswith(_COUNTED.format(kind)))
        for kind in ("draft", "accepted")
    )
    return drafted, accepted


async def measure(servers: list[Server], given: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds for a token after the first, by server: one a round."""
    seconds: dict[str, list[float]] = {_WITHOUT: [], _WITH: []}
    for number in range(-1, given.rounds):  # the first is not counted
        stage = Stage("", given.streams, tuple(requests(number, given)))
        for server in servers:
            told = sample([reply for _, reply in await run_stage(server, stage, Asking(), {})])
            if told.failures:
                raise SystemExit(f"{server.name}: {told.details}")
            if number >= 0:
                seconds[server.name].append(statistics.mean(told.per_token))
    return seconds


def requests(number: int, given: argparse.Namespace) -> Iterator[Request]:
    """Of one round."""
    prompts = Prompts(str(number), tokens_per_word=1.0, spread=0.0)
    for stream in range(given.streams):
        asked = (("user", prompts.about(given.prompt_tokens)),)
        sampling = _SAMPLING | {"seed": number * given.streams + stream}
        yield Request(f"{number}/{stream}", asked, given.output_tokens, sampling)


def show(seconds: dict[str, list[float]], server: Server) -> None:
    """The medians of the rounds; the ratios are medians of each round's, with their range."""
    without, drafted = seconds[_WITHOUT], seconds[_WITH]
    ratios = [slow / quick for slow, quick in zip(without, drafted, strict=True)]
    print(
        f"a stream has {1 / statistics.median(without):.1f} tokens/s without, "
        f"{1 / statistics.median(drafted):.1f} with: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    guesses, right = counted(server)
    print(f"{guesses:,.0f} guesses, {right / max(guesses, 1):.0%} right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="medium")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--draft-layers", type=int, default=1)
    parser.add_argument("--difference", type=float, default=0.1)
    parser.add_argument("--guesses", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=60)
    parser.add_argument("--output-tokens", type=int, default=200)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        make_pair(given.make, given.shape, given.draft_layers, given.difference, given.bits)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # By a process of its own, which gives the memory back.
        made = [sys.executable, "-m", "benchmarks.speculation", *sys.argv[1:], "--make"]
        subprocess.run([*made, str(folder)], check=True)  # noqa: S603 - our own program
        servers = [
            stack.enter_context(portico(folder, name, given.guesses)) for name in (_WITHOUT, _WITH)
        ]
        show(asyncio.run(measure(servers, given)), servers[1])


if __name__ == "__main__":
    main()
