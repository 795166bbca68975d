"""How long the program takes: to help, to listen and to answer.

    python -m benchmarks.startup

The best of several runs counts: the first ones read the disk. CPU seconds hardly depend on what
else runs. With --imports the slowest imports of `portico serve` are listed instead.
"""

import argparse
import http.client
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.processes import free_port, running

_PORTICO = ("-m", "adapters.cli.main")
_IMPORTS = 30


def seconds_to_help() -> dict[str, float]:
    began = time.perf_counter()
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, *_PORTICO, "--help"], check=True, stdout=subprocess.DEVNULL
    )
    return {"help": time.perf_counter() - began}


def seconds_to_serve() -> dict[str, float]:
    """Until a connection is accepted, and until `/livez` has answered."""
    port = free_port()
    flags = ("serve", "--port", str(port), "--log-level", "warning")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with running(*_PORTICO, *flags, port=port, environment={"HF_HOME": folder}):
            listening = time.perf_counter() - began
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/livez")
            assert connection.getresponse().status == http.client.OK
            return {"listening": listening, "alive": time.perf_counter() - began}


def best_of(count: int, measure: Callable[[], dict[str, float]]) -> None:
    runs: list[dict[str, float]] = []
    cpu: list[float] = []
    for _ in range(count):
        before = _cpu_of_children()
        runs.append(measure())
        cpu.append(_cpu_of_children() - before)
    for name in runs[0]:
        print(f"{name:10} {min(run[name] for run in runs):6.2f} s")
    print(f"{'CPU':10} {min(cpu):6.2f} s")


def _cpu_of_children() -> float:
    """Of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show_imports() -> None:
    """In milliseconds, with all that each of them imports first."""
    timed = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import adapters.cli.serve"],
        check=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = re.findall(r"^import time: +\d+ \| +(\d+) \| +(\S+)$", timed.stderr, re.MULTILINE)
    imports = sorted(((int(total), name) for total, name in rows), reverse=True)
    for microseconds, name in imports[:_IMPORTS]:
        print(f"{microseconds / 1000:8.1f} {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--imports", action="store_true", help="list the slowest imports")
    given = parser.parse_args()
    if given.imports:
        show_imports()
        return
    best_of(given.runs, seconds_to_help)
    best_of(given.runs, seconds_to_serve)


if __name__ == "__main__":
    main()
