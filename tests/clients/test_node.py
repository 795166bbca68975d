"""The JavaScript clients, in tests of their own language: `node --test` in node/."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"
INSTALLED = "installed-lock.json"

pytestmark = pytest.mark.timeout(300)  # the first run installs


def run(folder: Path, *command: str, **env: str) -> str:
    program = shutil.which(command[0])
    assert program, f"the tests of the JavaScript clients need {command[0]} (Node.js 20 or newer)"
    done = subprocess.run(  # noqa: S603 - our own programs
        [program, *command[1:]],
        cwd=folder,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def node_folder(pytestconfig: pytest.Config) -> Path:
    """A copy of node/ with its packages, outside the tree; installed again when the lock changes.

    In pytest's cache, which git ignores and `make clean` removes.
    """
    folder = pytestconfig.cache.mkdir("portico-node-clients")  # type: ignore[union-attr]
    sources = [path for path in NODE.iterdir() if path.is_file()]
    for stale in folder.glob("*.js"):
        stale.unlink()
    for source in sources:
        shutil.copy(source, folder)
    lock, installed = NODE / "package-lock.json", folder / INSTALLED
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        run(folder, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
        shutil.copy(lock, installed)
    return folder


@pytest.mark.parametrize("file", sorted(path.name for path in NODE.glob("*.test.js")))
def test_the_client_works(node_folder: Path, base_url: str, file: str) -> None:
    output = run(
        node_folder, "node", "--test", "--test-reporter=tap", file, PORTICO_BASE_URL=base_url
    )
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", output, re.M)}
    assert counts["pass"] > 0
    assert counts["fail"] == counts["skipped"] == counts["todo"] == counts["cancelled"] == 0
