"""A download in a process of its own, to be killed: python -m tests.adapters.pull_script URL DIR"""

import asyncio
import sys
from pathlib import Path

from adapters.huggingface.source import HubOptions, HuggingFaceSource
from domain.models import ModelId


async def main(url: str, cache: str) -> None:
    source = HuggingFaceSource(HubOptions(Path(cache), url))
    async for progress in source.pull(ModelId.parse("org/model")):
        print(progress.phase.value, progress.bytes_done, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
