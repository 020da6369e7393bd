"""When to evaluate the whole training set, and when to stop. Plain arithmetic on the history so far.

The schedule is that of Dziugaite et al. (2020): at the end of each epoch, and 2, 4, 8 times per epoch once the
cross-entropy has passed 5, 2.5, 1.5 times the target. A check costs a third of an epoch, so most would be wasted:
one is made only if the running mini-batch loss says that it may matter (`worth_checking`).
"""

from __future__ import annotations

from collections.abc import Sequence

FALL = 0.7  # a check for every fall of the mini-batch loss by this factor, so that hitting times can be computed
PATIENCE = 5  # epochs without a check after which one is made in any case


def checks_per_epoch(loss: float, target: float) -> int:
    """How many times per epoch to consider a check when the last one gave the cross-entropy `loss` (nats)."""
    return next((n for factor, n in ((1.5, 8), (2.5, 4), (5.0, 2)) if loss <= factor * target), 1)


def part_start(begin: int, end: int, part: int, parts: int) -> int:
    """The update at which `part` of `parts` nearly equal parts of the updates from `begin` to `end` starts."""
    return begin + (end - begin) * part // parts


def worth_checking(
    running: float,
    epochs_since: float,
    check_running: Sequence[float],
    check_loss: Sequence[float],
    *,
    target: float,
) -> bool:
    """Whether to evaluate the whole training set now.

    Dropout and batch norm put the mini-batch loss above (or below) the evaluated one by a factor that changes
    slowly; it is taken from the last check. A check is made if the loss predicted in this way is within 1.2 times the
    target, if the mini-batch loss has fallen by `FALL` since the last check, or if that was `PATIENCE` epochs ago.

    Args:
        running: mean mini-batch loss of the latest piece of training (nats).
        epochs_since: epochs since the last check.
        check_running: the same loss at every check so far.
        check_loss: the cross-entropy at every check so far.
        target: the cross-entropy at which to stop.
    """
    if not check_loss:
        return True
    predicted = running * (check_loss[-1] / check_running[-1]) if check_running[-1] > 0 else 0.0
    return predicted <= 1.2 * target or running <= FALL * check_running[-1] or epochs_since >= PATIENCE
