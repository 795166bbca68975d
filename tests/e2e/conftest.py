"""The real program in a process of its own, on the embedded demo model."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest


@dataclass
class Program:
    """`portico serve` as a newcomer runs it."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)
    url: str = ""

    def read(self, listening: threading.Event) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.output.append(line)
            if found := re.search(r"running on (https?://\S+)", line):
                self.url = found[1]
                listening.set()


@contextmanager
def portico_serve(folder: Path, *flags: str, files: int | None = None) -> Iterator[Program]:
    """files: as many as it may open."""
    command = [sys.executable, "-m", "adapters.cli.main", "serve", "--port", "0", *flags]
    if files is not None:
        command = ["/bin/sh", "-c", f'ulimit -n {files} && exec "$0" "$@"', *command]
    process = subprocess.Popen(  # noqa: S603 - our own program
        command,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HOME": str(folder / "huggingface")},
    )
    program = Program(process)
    listening = threading.Event()
    reader = threading.Thread(target=program.read, args=(listening,), daemon=True)
    reader.start()
    try:
        assert listening.wait(30), program.output
        yield program
    finally:
        process.terminate()
        process.wait(30)
        reader.join(10)
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with portico_serve(tmp_path_factory.mktemp("cwd")) as program:
        yield program
    assert not [line for line in program.output if "Traceback" in line]


@pytest.fixture
def client(demo_server: Program) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo_server.url}/v1", api_key="x", max_retries=0) as client:
        yield client
