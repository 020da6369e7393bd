"""Material for reports, made up: as large as wanted, or as hostile."""

from __future__ import annotations

import numpy as np

from prunegen_jax import judging
from prunegen_jax.judging import Matrix, Verdict
from prunegen_jax.judging.table import Table
from prunegen_jax.report.material import Material
from prunegen_jax.runs.points import Point

HOSTILE = "<script>alert(1)</script>"
FAMILIES = ("pruning", "norms", "margins", "flatness", "speed", "size", "noise", "beyond")


def table(models: int, measures: int, *, seed: int = 0) -> Table:
    """`models` networks over two axes of numbers, one of words and a seed, with `measures` noisy views of the gap."""
    generator = np.random.default_rng(seed)
    place = np.arange(models)
    axes = {
        "model.width": 8.0 * (1 + place % 4),
        "train.learning_rate": 0.01 * (1 + place // 4 % 5),
        "train.optimizer": np.array(["adam", "momentum"])[place // 20 % 2],
        "seed": (place // 40).astype(float),
    }
    gap = generator.normal(0.1, 0.03, models)
    names = ["prunability", *(f"measure_{i:02d}" for i in range(1, measures))]
    return Table(
        names=tuple(f"width={axes['model.width'][i]:g},seed={axes['seed'][i]:g},i={i}" for i in place),
        hyperparameters=axes,
        measures={name: gap + 0.01 * (i + 1) * generator.normal(size=models) for i, name in enumerate(names)},
        targets={"gap": gap, "test_loss": generator.permutation(gap)},
        families={name: FAMILIES[i % len(FAMILIES)] for i, name in enumerate(names)},
        signs={name: -1 if i % 5 == 4 else 1 for i, name in enumerate(names)},
        test_size=1000,
    )


def record(name: str) -> dict:
    """A whole record of a network called `name`, without measures."""
    point, losses = Point(name, {"model.name": name}, ()), {"loss": 0.01, "accuracy": 1.0, "size": 8}
    known = {"name": name, "hash": point.hash, "point": point.fields, "axes": [], "status": "converged", "reason": ""}
    known |= {"train": losses, "test": losses, "updates": 20, "epochs": 2, "data": "0123456789abcdef"}
    return known | {"measures": {}, "versions": {"jax": "9.9.9"}}


def material(models: int, measures: int) -> Material:
    """All sections of a large sweep; statistics without meaning stand where the real ones take long to compute."""
    whole = table(models, measures)
    settings = {"draws": 200, "permutations": 0, "added_permutations": 0, "baseline_draws": 0}
    verdict = judging.judge(whole.take(np.arange(40)), **settings)
    rows = tuple(row | {"k_null": 0.01, "k_null_95": 0.05, "k_p_holm": 0.2, "k_corrected": 0.1} for row in verdict.rows)
    names = tuple(whole.measures)
    size, generator = (len(names), len(names)), np.random.default_rng(1)
    keys = ("shared_symmetric", "shared", "shared_least")
    keys += tuple(f"added{part}_{t}" for t in whole.targets for part in ("", "_null", "_p", "_least", "_least_null"))
    matrices = {key: Matrix(names, names, generator.uniform(size=size), key) for key in keys}
    falling = np.exp(-np.arange(300) / 40)
    return Material(
        title="a large sweep",
        table=whole,
        verdict=Verdict(rows, matrices=matrices, settings=verdict.settings, notes=("made up",)),
        curves={n: {"fractions": np.linspace(0, 1, 51), "losses": 2 - np.linspace(0, 1, 51)} for n in whole.names},
        crossings={n: {"fraction": 0.9, "loss": 1.09, "dense": 1.0, "limit": 1.1} for n in whole.names},
        histories={n: {"check_update": range(300), "check_loss": falling, "target": 0.01} for n in whole.names},
        times={n: dict.fromkeys(whole.measures, 1.0) for n in whole.names},
        config={"seed": "0"},
        versions={"jax": "0"},
    )
