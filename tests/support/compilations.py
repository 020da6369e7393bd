"""Counting what XLA compiles."""

from __future__ import annotations

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
