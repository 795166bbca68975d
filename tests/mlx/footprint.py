"""What loading and filling a model takes, as MLX measures it; beside what its profile says.

`python -m tests.mlx.footprint FOLDER CONTEXT REQUESTS`, in a process of its own: MLX counts for
the process, and other tests' arrays would count too.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from adapters.mlx.batch import Batch, Said
from adapters.mlx.files import leaves
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.chat import Sampling, TextCommand
from domain.memory import LoadPlan
from domain.models import ModelCard, ModelId

_LAST_ANSWER = 24  # tokens


class _Watch:
    """The most that the caches ever were."""

    def __init__(self) -> None:
        self.kv = 0

    def install(self) -> None:
        prefill = Batch.prefill

        def watched(batch: Batch) -> Iterator[Said]:
            yield from prefill(batch)
            caches = leaves(batch._decoding._rows.caches)
            for prompt in batch._prefills._prompts:
                caches += leaves(prompt.caches)
            self.kv = max(self.kv, sum(cache.nbytes for cache in caches))

        Batch.prefill = watched  # type: ignore[method-assign]


async def measure(folder: Path, context: int, requests: int) -> dict[str, int]:
    watch = _Watch()
    watch.install()
    card = ModelCard(ModelId.parse(folder.name), "", folder, 0, context, 0)
    options = MlxOptions(max_batch_size=requests, prefill_pace=1000)  # slices of full size
    loader = MlxEngineLoader(options)
    profile = await loader.profile(card, None)
    plan = LoadPlan(profile, context, requests)
    before = mx.get_active_memory()
    engine = await loader.load(card, plan)
    loaded = mx.get_active_memory() - before
    mx.reset_peak_memory()

    nearly_full = asyncio.Event()

    async def fill(n: int, prompt_tokens: int) -> None:
        prompt = tuple((7 * n + k) % 250 for k in range(prompt_tokens))
        answer = context - prompt_tokens
        sampling = Sampling(temperature=0, max_tokens=answer, logit_bias={258: -100.0})
        said = 0
        async for _ in engine.generate(TextCommand(card.id, prompt, sampling)):
            said += 1
            if said > answer // 2:
                nearly_full.set()

    async def fill_last(n: int) -> None:
        """A long prompt, while all others have come far: what takes the most."""
        await nearly_full.wait()
        await fill(n, context - _LAST_ANSWER)

    early = (fill(n, context // 2) for n in range(requests - 1))
    await asyncio.gather(*early, fill_last(requests - 1))
    peak = mx.get_peak_memory() - before
    stats = engine.stats
    await engine.close()
    return {
        "weights": profile.weights,
        "weights_measured": loaded,
        "footprint": engine.footprint,
        "kv": plan.need.kv_cache,
        "kv_measured": watch.kv,
        "total": plan.need.total,
        "total_measured": peak,
        "widest_batch": stats.widest_batch,
        "left": mx.get_active_memory() + mx.get_cache_memory(),
    }


if __name__ == "__main__":
    folder, context, requests = sys.argv[1:]
    print(json.dumps(asyncio.run(measure(Path(folder), int(context), int(requests)))))
