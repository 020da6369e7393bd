"""Writes docs/findings.md from the tables in studies/, and such a table from the workdir of a sweep.

    python -m docs.make_findings                                      # the page, its figures, README's summary
    python -m docs.make_findings runs/double_descent double_descent   # studies/double_descent first, from a workdir

A study has the results.csv of its workdir, with the standard errors of the measures (`sem.*`) and what each network was
made with (`version.*`) besides, its config, and curves.csv if its networks have pruning curves with test losses. Every
number on the page comes from these tables.
"""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

import prunegen_jax
from docs import findings_cifar10, repeat_study
from docs import findings_text as text
from docs.findings_text import with_interval
from prunegen_jax.judging import judge
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Row
from prunegen_jax.report import findings, widths
from prunegen_jax.report.findings import Finding
from prunegen_jax.runs import curves, files, record
from prunegen_jax.runs.studies import read_study
from prunegen_jax.runs.tables import read_csv
from prunegen_jax.runs.tables.write import csv_text

ROOT = pathlib.Path(__file__).parent.parent
STUDIES = ROOT / "studies"
PAGE = ROOT / "docs" / "findings.md"
README = ROOT / "README.md"
FIGURE = ROOT / "docs" / "images" / "double_descent.svg"
CENTRAL_FIGURE = ROOT / "docs" / "images" / "cifar10.svg"
_SUMMARY = re.compile(r"^\*\*What was found so far\.\*\* .*?\n(?=\n)", re.DOTALL | re.MULTILINE)


def main(arguments: Sequence[str]) -> None:
    """Writes a study, if a workdir and a name are given, and then the page and its figure."""
    if arguments:
        workdir, name = arguments
        write_study(epath.Path(workdir), epath.Path(STUDIES / name))
    PAGE.write_text(page(STUDIES))
    README.write_text(with_summary(README.read_text(), STUDIES))
    CENTRAL_FIGURE.write_bytes(findings_cifar10.figure(STUDIES / "cifar10"))
    FIGURE.write_bytes(base64.b64decode(widths.image(read_study(epath.Path(STUDIES / "double_descent"))).split(",")[1]))


def write_study(workdir: epath.Path, study: epath.Path) -> None:
    """Copies the results and the config of a workdir; the folders of its data are left out of the config."""
    study.mkdir(parents=True, exist_ok=True)
    write_results(workdir, study / "results.csv")
    config = json.loads((workdir / "config.json").read_text())
    config.pop("checksum", None)  # it is another file now: a study does not say where one machine keeps its data
    config["data"] |= {"dir": None, "cache_dir": None}
    with files.atomic(study / "config.json") as file:
        file.write((json.dumps(config, indent=1) + "\n").encode())
    drawn = {name: curve for name, curve in curves.read_table(workdir).items() if "test_losses" in curve}
    if drawn:
        with files.atomic(study / "curves.csv") as file:
            file.write(csv_text(*curves.to_rows(drawn)).encode())


def write_results(workdir: epath.Path, target: epath.Path) -> None:
    """Copies the results.csv of a workdir, with standard errors and versions from its records."""
    header, *lines = csv.reader(io.StringIO((workdir / "results.csv").read_text()))
    known = {each.name: each.to_json() for each in record.scan(workdir)[0]}
    columns = {f"sem.{m}": ("measures", m, "sem") for each in known.values() for m in each["measures"]}
    columns |= {f"version.{v}": ("versions", v) for each in known.values() for v in each["versions"]}
    rows = [line + [_text(known[line[0]], path) for path in columns.values()] for line in lines]
    added = [*header, *columns, "version.prunegen_jax"]
    with files.atomic(target) as file:
        file.write(csv_text(added, [[*row, prunegen_jax.__version__] for row in rows]).encode())


def _text(value: Any, path: Sequence[str]) -> str:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def page(studies: pathlib.Path) -> str:
    """The text of docs/findings.md."""
    large = studies / "cifar10"
    parts = *findings_cifar10.sections(large), *_double_descent(studies / "double_descent"), _repetition(large)
    return "\n".join([_INTRODUCTION, *parts])


def with_summary(readme: str, studies: pathlib.Path) -> str:
    """The text of README.md with the summary of the findings in place of the one that is there.

    Raises:
        ValueError: if the text does not have exactly one.
    """
    found = findings_cifar10.summary(studies / "cifar10", _descent(studies / "double_descent")[2].rows)
    if len(_SUMMARY.findall(readme)) != 1:
        raise ValueError("README.md must have one paragraph that begins with '**What was found so far.**'")
    return _SUMMARY.sub(lambda _: found, readme)


def _descent(folder: pathlib.Path) -> tuple[Table, Finding, Finding]:
    """The study of double descent: its table, its means by size, and its ranking by test loss."""
    table = read_study(epath.Path(folder))
    verdict = judge(table, targets=["test_loss"], draws=text.DRAWS, seed=0, permutations=0, baseline_draws=0)
    return table, *findings.descent(table, verdict)


def _double_descent(folder: pathlib.Path) -> list[str]:
    table, means, ranking = _descent(folder)
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
        text.table(means.rows, {axis: "width", **_SHOWN}),
        "Rank correlation (tau-b) with the test loss, seeds averaged, with 95 % intervals; the last columns say by how "
        "much prunability is better, from the same bootstrap draws.\n",
        text.ranking(ranking.rows),
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


def _verdict_in_words(rows: Mapping[str, Row], means: Sequence[Row]) -> str:
    ours, absolute, loss = (rows[name] for name in ("prunability", "prunability:absolute", "training_cross_entropy"))
    first, last = means[0], means[-1]
    before, peak = max(itertools.pairwise(means), key=lambda pair: pair[1]["test_loss"] - pair[0]["test_loss"])
    names = "prunability", "prunability:absolute"
    moved = " and ".join(f"{name} goes from {before[name]:.3f} to {peak[name]:.3f}" for name in names)
    factor = f"{first['train_loss'] / last['train_loss']:,.0f}"
    return f"""\
**Whether prunability follows the test loss through double descent depends on the tolerance.** With the relative
tolerance that is this package's default, its tau-b with the test loss is {with_interval(ours)}. With an absolute
tolerance, 0.01 nats above the network's own loss, it is {with_interval(absolute)}. Trained without a target, the
losses that a relative tolerance refers to differ by a factor of {factor} between widths.

**Prunability is not ahead here.** The training loss alone has {with_interval(loss)}. Where the test loss rises
from {before["test_loss"]:.2f} to {peak["test_loss"]:.2f} before it falls again, {moved}:
no rise beside that of the test loss. {len(means)} widths of one family on one small data set cannot decide more.
"""


def _repetition(folder: pathlib.Path) -> str:
    """What became of the networks of the study on CIFAR-10 that were trained and measured again."""
    table, again = read_study(epath.Path(folder)), read_csv(folder / "repeated.csv")
    with (folder / "repeated.csv").open() as file:
        (processor,) = {row["version.processor"] for row in csv.DictReader(file)}
    found = repeat_study.differences(table, again)
    shares = {name: each.largest / each.deviation for name, each in found.items() if each.deviation}
    text_of = {name: f"{found[name].largest:.2g} ({found[name].deviation:.2g})" for name in ("prunability", "gap")}
    equal = [name for name, each in found.items() if each.equal == len(again)]
    return "## The same networks again\n\n" + text.paragraph(f"""
`python -m docs.repeat_study cifar10 --dir=DIR --workdir=runs/repeat` trains and measures networks of the study again;
{len(again)} were drawn by a fixed seed. On the same kind of processor, all numbers that there were at that time were
equal: those of all measures but `prunability_random`, `_folded`, `_layerwise`, `:double` and `:all_parameters`,
`perturbation_robustness` and `hessian_trace`. On another kind ({processor}), three repetitions gave equal numbers in
all {len(again.measures)} measures and {len(again.targets)} targets, but not those of the study, because training
amplifies rounding: {len(equal)} of the {len(found)} columns kept all their numbers. The largest difference of a column
is, in the median of the columns, {np.median(list(shares.values())):.2f} times its standard deviation over the study.
For prunability it is {text_of["prunability"]}, for the gap {text_of["gap"]}, with that standard deviation in
parentheses. `studies/cifar10/repeated.csv` has these networks. The table of the study names its
processor, an AMD EPYC, without family and model: records did not hold it yet, and it was added afterwards.
""")


_INTRODUCTION = """\
# Findings

What the paper claims, tested with this package. Every number is computed from the tables in `studies/` by `python -m
docs.make_findings`, and a test computes it again.
"""


if __name__ == "__main__":
    main(sys.argv[1:])
