"""Records the history of a training loop of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.types import History


class HistoryRecorder:
    """Makes the `History` of a network while it trains.

    Call `update(loss)` after every mini-batch, `end_epoch()` after every epoch, and `check(loss)` whenever the loss on
    the whole training set was computed in evaluation mode, at least once at the end.
    """

    def __init__(self, *, batch_size: int, target: float = 0.0) -> None:
        """Starts with an empty history.

        Args:
            batch_size: examples of a mini-batch.
            target: the training loss at which training stops; 0 where it does not stop at a loss.

        Raises:
            ValueError: for a batch size below 1.
        """
        check_at_least(1, batch_size=batch_size)
        self._batch_size, self._target, self._updates = batch_size, target, 0
        self._losses: list[Any] = []
        self._epochs: list[float] = []
        self._checks: list[tuple[int, float]] = []

    def update(self, loss: Any) -> None:
        """Counts an optimizer update; `loss` is that of its mini-batch and may still be on the device."""
        self._losses.append(loss)
        self._updates += 1

    def end_epoch(self) -> None:
        """Ends an epoch, whose loss is the mean of its updates.

        Raises:
            ValueError: if it has no update.
        """
        if not self._losses:
            raise ValueError("end_epoch() was called without update(loss) before it")
        self._epochs.append(float(np.mean([float(loss) for loss in self._losses])))
        self._losses = []

    def check(self, loss: Any) -> History:
        """Adds the loss on the whole training set; returns the history so far."""
        self._checks.append((self._updates, float(loss)))
        updates, losses = zip(*self._checks, strict=True)
        return History(tuple(self._epochs), updates, losses, self._updates, self._batch_size, self._target)
