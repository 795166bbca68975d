"""mlx-lm's BatchGenerator called directly, in a process of its own: no server, no text.

Reads loads from standard input and writes what each took to standard output.
"""

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_lm.generate import BatchGenerator
from mlx_lm.utils import load


class InProcess:
    """Its end of the pipes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def seconds(self, prompts: Sequence[str], concurrency: int, output_tokens: int) -> float:
        """For all prompts, `concurrency` of them at a time; the next one begins when one ends."""
        load = {"prompts": prompts, "concurrency": concurrency, "output_tokens": output_tokens}
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(load), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


@contextmanager
def in_process(model: Path) -> Iterator[InProcess]:
    command = (sys.executable, "-m", "benchmarks.batch_generator", str(model))
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield InProcess(process)
        assert process.stdin is not None
        process.stdin.close()


def generate(network: Any, prompts: Sequence[list[int]], width: int, count: int) -> float:
    """The seconds that it took, with as many at once as mlx_lm.server is started for."""
    generator = BatchGenerator(network, completion_batch_size=32, prefill_batch_size=8)
    waiting = deque(prompts)
    began = time.perf_counter()
    left: dict[int, int] = {}

    def begin(number: int) -> None:
        taken = [waiting.popleft() for _ in range(min(number, len(waiting)))]
        if taken:
            uids = generator.insert(taken, max_tokens=[count] * len(taken))
            left.update(dict.fromkeys(uids, count))

    begin(width)
    while left:
        for response in generator.next()[1]:
            left[response.uid] -= 1
            if not left[response.uid]:
                del left[response.uid]
                begin(1)
    generator.close()
    return time.perf_counter() - began


def main() -> None:
    network, tokenizer = load(sys.argv[1])[:2]
    for line in sys.stdin:
        given = json.loads(line)
        # Not counted: the servers' share of it is their own affair.
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True
            )
            for text in given["prompts"]
        ]
        print(generate(network, prompts, given["concurrency"], given["output_tokens"]), flush=True)


if __name__ == "__main__":
    main()
