"""Facts and limits of the device, which belong to the process and not to one model."""

import mlx.core as mx


def apply(max_cache_bytes: int | None) -> None:
    """Set the process-wide limits. Harmless when repeated.

    max_cache_bytes: how much freed memory MLX keeps for reuse; None is MLX's own default.

    Every BatchGenerator raises the wired limit and restores, on close, the one it found. Were
    that not the maximum already, closing one engine would lower it under the others.
    """
    recommended = mx.device_info().get("max_recommended_working_set_size")
    if isinstance(recommended, int):  # Metal only
        mx.set_wired_limit(recommended)
    if max_cache_bytes is not None:
        mx.set_cache_limit(max_cache_bytes)


def prefill_step_size() -> int:
    """Prompt tokens that this device computes well within a second, for common model sizes."""
    return 512 if mx.default_device().type == mx.DeviceType.gpu else 128
