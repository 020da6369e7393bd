"""Counting what XLA compiles, and dropping it."""

from __future__ import annotations

import pathlib

import jax


class counting_compilations:
    """Counts the programs that XLA compiles inside the block."""

    def __enter__(self):
        self.count, self.active = 0, True
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return lambda: self.count

    def _listen(self, event, duration, **_):
        del duration
        if self.active and event == "/jax/core/compile/backend_compile_duration":
            self.count += 1

    def __exit__(self, *_):
        self.active = False


def drop_many_programs():
    """Drops compiled programs before memory maps reach Linux's limit of 65,530, where XLA's compiler crashes."""
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
