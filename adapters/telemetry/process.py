"""The process, under the names that Prometheus' clients share.

prometheus_client's own collector reads /proc, which macOS does not have.
"""

import resource
from collections.abc import Iterable

import psutil
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


class ProcessCollector:
    """This process."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def collect(self) -> Iterable[Metric]:
        with self._process.oneshot():
            cpu, memory = self._process.cpu_times(), self._process.memory_info()
            figures = (
                ("resident_memory_bytes", "Resident memory", memory.rss),
                ("virtual_memory_bytes", "Virtual memory", memory.vms),
                (
                    "start_time_seconds",
                    "When the process began, in unix seconds",
                    self._process.create_time(),
                ),
                ("open_fds", "Open file descriptors", self._process.num_fds()),
                (
                    "max_fds",
                    "File descriptors that may be open",
                    resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                ),
                ("threads", "Threads", self._process.num_threads()),
            )
        yield CounterMetricFamily(
            "process_cpu_seconds", "CPU time, of user and system", cpu.user + cpu.system
        )
        for name, text, value in figures:
            yield GaugeMetricFamily(f"process_{name}", text, value)
