"""Trains and measures some networks of a study again, and compares the numbers with its table.

    python -m docs.repeat_study cifar10 --dir=DIR --workdir=runs/repeat
    python -m docs.repeat_study double_descent --networks=2 --workdir=runs/repeat

DIR is the folder where TFDS keeps its prepared sets. The networks are drawn at random with a fixed seed. With the same
versions and on the same kind of processor all numbers are equal. On another kind they are not, because training
amplifies rounding: compare the differences with the spread of the column over the networks of the study.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax.judging.table import Table
from prunegen_jax.runs import pipeline, points, tables, workdir
from prunegen_jax.runs.studies import FOLDER, read_study


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints how many of the networks have the same number again, and the largest difference, for each column."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="name of a folder of studies/, or a folder with results.csv and config.json")
    parser.add_argument(
        "--workdir", required=True, help="where the networks are trained; a run that was stopped goes on"
    )
    parser.add_argument("--dir", help="where TFDS keeps its prepared sets")
    parser.add_argument("--networks", type=int, default=5, help="number of networks")
    parser.add_argument("--seed", type=int, default=0, help="seed by which they are chosen")
    given = parser.parse_args(arguments)
    study = FOLDER / given.study if (FOLDER / given.study).is_dir() else epath.Path(given.study)
    try:
        table = read_study(study)
        config = repeat_config(study, choose(table, given.networks, seed=given.seed))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    config.data.dir = given.dir
    pipeline.run(config, given.workdir, stages=("train", "measure"))
    again = pipeline.read_table(epath.Path(given.workdir)).with_left_out()
    tables.write_csv(again, workdir.results_path(epath.Path(given.workdir)))
    print(format_differences(differences(table, again), len(again)))


def choose(table: Table, count: int, *, seed: int) -> list[str]:
    """Names of networks, drawn without replacement.

    Raises:
        ValueError: if there are fewer.
    """
    if not 1 <= count <= len(table):
        raise ValueError(f"networks={count} must lie between 1 and {len(table)}, the networks of the study")
    return random.Random(seed).sample(sorted(table.names), count)


def repeat_config(study: epath.Path, names: Sequence[str]) -> ConfigDict:
    """The config of a study for the networks `names` of it alone."""
    content = json.loads((study / "config.json").read_text())
    config = ConfigDict(_with_tuples(content))
    named = {point.name: point for point in points.points(config)}
    config.sweep.mode = "list"
    config.sweep.points = tuple(tuple((axis, named[name].fields[axis]) for axis in named[name].axes) for name in names)
    return config


def _with_tuples(value: Any) -> Any:
    """JSON has lists where a config has tuples."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


class Difference(NamedTuple):
    """How the numbers of a column came out again.

    Attributes:
        equal: networks with the same number.
        largest: absolute difference.
        deviation: standard deviation of the column over all networks of the study.
    """

    equal: int
    largest: float
    deviation: float


def differences(table: Table, again: Table) -> dict[str, Difference]:
    """The differences of every measure and target.

    Args:
        table: of the study.
        again: of networks of the study that were trained again.
    """
    places = {name: i for i, name in enumerate(table.names)}
    rows = [places[name] for name in again.names]
    found = {}
    for kind in ("measures", "targets"):
        before, after = getattr(table, kind), getattr(again, kind)
        for name in before:
            old, new = before[name][rows], after[name]
            equal = int(np.sum((old == new) | (np.isnan(old) & np.isnan(new))))
            largest = float(np.nanmax(np.abs(new - old), initial=0.0))
            found[name] = Difference(equal, largest, float(np.nanstd(before[name])))
    return found


def format_differences(found: dict[str, Difference], count: int) -> str:
    """A line for each measure and target, of `count` networks."""
    lines = [f"{'':<32}{'equal':>9}{'largest difference':>22}{'standard deviation in the study':>34}"]
    for name, each in found.items():
        lines.append(f"{name:<32}{each.equal:>4} of {count:<3}{each.largest:>20.3g}{each.deviation:>34.3g}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
