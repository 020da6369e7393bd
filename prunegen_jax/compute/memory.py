"""The memory of a device, and how much of it a program over many networks may take."""

from __future__ import annotations

import jax

MEMORY_SHARE = 0.6  # of a device's memory, that a program over many networks may take
_DEFAULT_MEMORY = 8 << 30  # bytes, of a device that does not report its memory


def device_memory() -> int:
    """Bytes of the memory of a device."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit", _DEFAULT_MEMORY))
