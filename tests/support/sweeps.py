"""A made-up sweep to judge."""

import itertools

import numpy as np

from prunegen_jax.judging import Table

QUICK = {"draws": 100, "permutations": 19, "baseline_draws": 3}


def make_table(levels=(2, 3, 2), seeds=2, *, seed=0):
    """A sweep in which `prunability` follows the gap, `noise` nothing, and `against` the gap's negative."""
    rng = np.random.default_rng(seed)
    codes = np.array([(*p, s) for p in itertools.product(*map(range, levels)) for s in range(seeds)], dtype=float)
    n = len(codes)
    gap = 0.02 * codes[:, 1] + 0.1 * rng.random(n)
    names = [*(f"axis{i}" for i in range(len(levels))), "seed"]
    return Table(
        names=tuple(map(str, range(n))),
        hyperparameters={name: codes[:, i] for i, name in enumerate(names)},
        measures={
            "prunability": gap + 0.02 * rng.random(n),
            "noise": rng.random(n),
            "against": -gap + 0.01 * rng.random(n),
        },
        targets={"gap": gap, "test_error": gap + 0.001 * rng.random(n), "test_loss": 3 * gap + rng.random(n)},
        families={"prunability": "pruning", "against": "margin"},
        signs={"against": -1},
        test_size=10_000,
        confounders={"train_loss": rng.random(n), "batch_size": codes[:, 0]},
    )
