"""Facts and limits of the device, which belong to the process and not to one model."""

import os

import mlx.core as mx


def apply(max_cache_bytes: int | None) -> None:
    """Set the process-wide limits. Harmless when repeated.

    max_cache_bytes: how much freed memory MLX keeps for reuse; None is a small share of what
    models may use (MLX's own default is all of the device's memory).
    """
    recommended = mx.device_info().get("max_recommended_working_set_size")
    if isinstance(recommended, int):  # Metal only
        mx.set_wired_limit(recommended)
    if max_cache_bytes is None:
        max_cache_bytes = int(safe_memory() * _CACHE_SHARE)
    mx.set_cache_limit(max_cache_bytes)


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


def device_memory() -> int:
    """Bytes that models may use, as the device says; else those of the machine.

    Metal recommends a working set (beyond it the system starts to swap), CUDA has a total.
    """
    told = mx.device_info()
    for name in ("max_recommended_working_set_size", "total_memory", "memory_size"):
        if isinstance(value := told.get(name), int):
            return value
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def prefill_step_size() -> int:
    """Prompt tokens that this device computes well within a second, for common model sizes."""
    return 512 if mx.default_device().type == mx.DeviceType.gpu else 128


def prefill_width() -> int:
    """How many short prompts are computed in one go: a GPU is faster at it, a CPU is not."""
    return 8 if mx.default_device().type == mx.DeviceType.gpu else 1
