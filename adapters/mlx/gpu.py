"""Facts and limits of the device, which belong to the process and not to one model."""

import os
import stat
from pathlib import Path

import mlx.core as mx

from domain.batching import LEAST_SLICE, places


def apply(max_cache_bytes: int | None) -> None:
    """Set the process-wide limits. Harmless when repeated.

    max_cache_bytes: how much freed memory MLX keeps for reuse; None is a small share of what
    models may use (MLX's own default is all of the device's memory).
    """
    _keep_kernels_private()
    recommended = mx.device_info().get("max_recommended_working_set_size")
    if isinstance(recommended, int):  # Metal only
        mx.set_wired_limit(recommended)
    if mx.cuda.is_available():
        # cuDNN plans for every new length of a batch: a second each on an H100. MLX's own
        # attention takes a quarter longer, and no time to plan. Read at the first attention.
        os.environ.setdefault("MLX_CUDA_USE_CUDNN_SDPA", "0")
        # MLX replays CUDA graphs of 100 operations, each made anew for every new shape. Shorter
        # ones come up again more often: where rows come and go, a step takes half the time.
        os.environ.setdefault("MLX_MAX_OPS_PER_BUFFER", "20")
        # And it ends the process once 800 graphs have been made in its life.
        os.environ.setdefault("MLX_ENABLE_CACHE_THRASHING_CHECK", "0")
        os.environ.setdefault("MLX_CUDA_GRAPH_CACHE_SIZE", "2000")
    if max_cache_bytes is None:
        max_cache_bytes = int(safe_memory() * _CACHE_SHARE)
    mx.set_cache_limit(max_cache_bytes)


def _keep_kernels_private() -> None:
    """MLX compiles kernels into the temporary folder, and runs what it finds there. Where that
    folder is everybody's, another user could have put it there, or own the folder it goes to.
    """
    try:
        if os.environ.get("TMPDIR") or not Path("/tmp").stat().st_mode & stat.S_IWOTH:  # noqa: S108
            return
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portico"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that is only read
        return
    if os.access(folder, os.W_OK | os.X_OK):
        os.environ["TMPDIR"] = str(folder)


def safe_memory() -> int:
    """Bytes that models may use: a safe share of what the device says, or the machine has.

    Metal recommends a working set (beyond it the system starts to swap), CUDA has a total.
    """
    told = mx.device_info()
    for name in ("max_recommended_working_set_size", "total_memory", "memory_size"):
        if isinstance(value := told.get(name), int):
            return int(value * _DEVICE_SHARE)
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _MACHINE_SHARE)


# What is left is for MLX's buffer cache, and where the memory is shared, for other programs.
_DEVICE_SHARE = 0.9
_MACHINE_SHARE = 0.7
_CACHE_SHARE = 0.05


def prefill_step_size() -> int:
    """The most prompt tokens in one go; fewer where they would take long."""
    return 128 if on_cpu() else 2048


def prefill_pace(long: bool) -> float:
    """How many decode steps' time a slice of a prompt may take; of a long one fewer, as there are
    many. A GPU needs about one step's time for a slice of any size.
    """
    return 1.25 if long and on_cpu() else 2.0


def least_slice() -> int:
    """Tokens of a slice, fewer of which would take as long."""
    return 8 if on_cpu() else LEAST_SLICE


def prefill_width() -> int:
    """How many short prompts are computed in one go: a GPU is faster at it, a CPU is not."""
    return 1 if on_cpu() else 8


def lanes() -> int:
    """Parts of a prompt that are computed at the same time: MLX computes on one core of a CPU what
    is on one stream, and more than two streams were never faster.
    """
    return min(os.cpu_count() or 1, 2) if on_cpu() else 1


def launch_bound() -> bool:
    """Whether operations take the CPU longer to launch than the device to compute, so that rows
    and tokens more cost little: 14 ms for a prompt of 256 tokens and 18 for 8 of them on an H100,
    for a model of 0.6 billion parameters.
    """
    return mx.cuda.is_available()


def batch_places(rows: int) -> int:
    """How many rows are computed for so many requests."""
    return places(rows) if launch_bound() else rows


def prefill_multiple() -> int:
    """On CUDA the first prompt of every length takes several times as long as the next one (40
    against 12 ms on an H100, for a model of 0.6 billion parameters), so there are few lengths.
    Metal and the CPU don't mind.
    """
    return 64 if mx.cuda.is_available() else 1


def on_cpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.cpu)
