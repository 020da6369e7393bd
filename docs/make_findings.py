"""Writes docs/findings.md from the tables in studies/, and such a table from the workdir of a sweep.

    python -m docs.make_findings                                      # the page and its figure
    python -m docs.make_findings runs/double_descent double_descent   # studies/double_descent first, from a workdir

A study has the results.csv of its workdir, with the standard errors of the measures (`sem.*`) and what each network was
made with (`version.*`) besides, and its config. Every number on the page comes from these tables.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

import prunegen_jax
from prunegen_jax.cli.findings import read_study
from prunegen_jax.judging import judge
from prunegen_jax.judging.statistics import RANKED_BY
from prunegen_jax.judging.verdict import Row
from prunegen_jax.report import findings, widths
from prunegen_jax.runs import files, record
from prunegen_jax.runs.tables.write import csv_text

ROOT = pathlib.Path(__file__).parent.parent
STUDIES = ROOT / "studies"
PAGE = ROOT / "docs" / "findings.md"
FIGURE = ROOT / "docs" / "images" / "double_descent.svg"
_DRAWS = 2000  # of the bootstrap


def main(arguments: Sequence[str]) -> None:
    """Writes a study, if a workdir and a name are given, and then the page and its figure."""
    if arguments:
        workdir, name = arguments
        write_study(epath.Path(workdir), epath.Path(STUDIES / name))
    PAGE.write_text(page(STUDIES))
    FIGURE.write_bytes(base64.b64decode(widths.image(read_study(epath.Path(STUDIES / "double_descent"))).split(",")[1]))


def write_study(workdir: epath.Path, study: epath.Path) -> None:
    """Copies the results and the config of a workdir, with standard errors and versions from its records."""
    header, *lines = csv.reader(io.StringIO((workdir / "results.csv").read_text()))
    known = {each.name: each.to_json() for each in record.scan(workdir)[0]}
    columns = {f"sem.{m}": ("measures", m, "sem") for each in known.values() for m in each["measures"]}
    columns |= {f"version.{v}": ("versions", v) for each in known.values() for v in each["versions"]}
    rows = [line + [_text(known[line[0]], path) for path in columns.values()] for line in lines]
    added = [*header, *columns, "version.prunegen_jax"]
    study.mkdir(parents=True, exist_ok=True)
    with files.atomic(study / "results.csv") as file:
        file.write(csv_text(added, [[*row, prunegen_jax.__version__] for row in rows]).encode())
    with files.atomic(study / "config.json") as file:
        file.write((workdir / "config.json").read_bytes())


def _text(value: Any, path: Sequence[str]) -> str:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def page(studies: pathlib.Path) -> str:
    """The text of docs/findings.md."""
    return "\n".join([_INTRODUCTION, *_double_descent(studies / "double_descent"), _OPEN])


def _double_descent(folder: pathlib.Path) -> list[str]:
    table = read_study(epath.Path(folder))
    verdict = judge(table, targets=["test_loss"], draws=_DRAWS, seed=0, permutations=0, baseline_draws=0)
    means, ranking = findings.descent(table, verdict)
    axis = widths.size_axis(table)
    rows = {row["measure"]: row for row in ranking.rows}
    config = json.loads((folder / "config.json").read_text())
    seeds = len(set(table.hyperparameters["seed"]))
    data, train = config["data"], config["train"]
    return [
        "## Double descent: does prunability follow the test loss?\n",
        f"""\
`python run.py --config=configs/double_descent.py --workdir=runs/double_descent`: the 5-layer
`{config["model"]["name"]}` at {len(means.rows)} widths, {seeds} seeds each, on 1,000 handwritten digits,
{data["label_noise"]:.0%} of their labels drawn again at random; Adam, {train["max_epochs"]} epochs, no target.
{len(table)} networks; a row for each in `studies/double_descent/results.csv`.
""",
        "![Test loss, training loss, test error, prunability and two flatness measures against the width]"
        "(images/double_descent.svg)\n",
        means.about + "\n",
        _table(means.rows, {axis: "width", **_SHOWN}),
        "Rank correlation (tau-b) with the test loss, seeds averaged, with 95 % intervals; the last columns say by how "
        "much prunability is better, from the same bootstrap draws.\n",
        _ranking(ranking.rows),
        _verdict_in_words(rows, means.rows),
    ]


_SHOWN = {
    "test_loss": "test loss",
    "train_loss": "training loss",
    "test_error": "test error",
    "prunability": "prunability",
    "prunability:absolute": "absolute tolerance",
    "prunability_error": "by training error",
    "average_sharpness": "average sharpness",
    "sam_sharpness": "SAM sharpness",
}


def _table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    lines = [[f"{row[key]:.3g}" for key in columns] for row in rows]
    return _markdown([list(columns.values()), ["---:"] * len(columns), *lines])


def _ranking(rows: Sequence[Row]) -> str:
    lines = [["measure", "tau-b", "95 %", "prunability is better by", "95 %"], ["---", "---:", "---", "---:", "---"]]
    for row in rows:
        low, high = row[f"{RANKED_BY}_low"], row[f"{RANKED_BY}_high"]
        line = [f"`{row['measure']}`", f"{row['sign'] * row[RANKED_BY]:.2f}", f"{low:.2f} to {high:.2f}"]
        paired = ["", ""]
        if row["reference_better_by"] is not None:  # the reference itself has none
            interval = f"{row['reference_low']:.2f} to {row['reference_high']:.2f}"
            paired = [f"{row['reference_better_by']:.2f}", interval]
        lines.append(line + paired)
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _verdict_in_words(rows: Mapping[str, Row], means: Sequence[Row]) -> str:
    ours, absolute, loss = (rows[name] for name in ("prunability", "prunability:absolute", "training_cross_entropy"))
    first, last = means[0], means[-1]
    before, peak = max(itertools.pairwise(means), key=lambda pair: pair[1]["test_loss"] - pair[0]["test_loss"])
    names = "prunability", "prunability:absolute"
    moved = " and ".join(f"{name} goes from {before[name]:.3f} to {peak[name]:.3f}" for name in names)
    factor = f"{first['train_loss'] / last['train_loss']:,.0f}"
    return f"""\
**Whether prunability follows the test loss through double descent depends on the tolerance.** With the relative
tolerance that is this package's default, its tau-b with the test loss is {_with_interval(ours)}. With an absolute
tolerance, 0.01 nats above the network's own loss, it is {_with_interval(absolute)}. Trained without a target, the
losses that a relative tolerance refers to differ by a factor of {factor} between widths.

**Prunability is not ahead here.** The training loss alone has {_with_interval(loss)}. Where the test loss rises
from {before["test_loss"]:.2f} to {peak["test_loss"]:.2f} before it falls again, {moved}:
no rise beside that of the test loss. {len(means)} widths of one family on one small data set cannot decide more.
"""


def _with_interval(row: Row) -> str:
    return f"{row['sign'] * row[RANKED_BY]:.2f} ({row[f'{RANKED_BY}_low']:.2f} to {row[f'{RANKED_BY}_high']:.2f})"


_INTRODUCTION = """\
# Findings

What the paper claims, tested with this package, in the order in which the studies were finished. Every number is
computed from the tables in `studies/` by `python -m docs.make_findings`, and a test computes it again.
"""
_OPEN = """\
## Not yet tested here

The large set of networks on CIFAR-10 (`configs/cifar10.py`): whether prunability predicts the generalization gap better
than measures of flatness, whether it grows with the size of a network, and what it shares with margins and the speed of
optimization. The verdict in the README is on 48 small networks and 500 digits, and decides none of this.
"""


if __name__ == "__main__":
    main(sys.argv[1:])
