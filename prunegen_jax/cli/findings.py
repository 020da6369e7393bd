"""`prunegen findings STUDY`: the questions of the paper about a judged study, each answered with a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from etils import epath

from prunegen_jax import judging
from prunegen_jax.compute.backend import check_backend
from prunegen_jax.judging.verdict import to_lines
from prunegen_jax.report import findings
from prunegen_jax.report.findings import Finding
from prunegen_jax.runs import curves, files
from prunegen_jax.runs.schema import Json
from prunegen_jax.runs.studies import read_study
from prunegen_jax.runs.tables.text_files import readable
from prunegen_jax.runs.tables.write import csv_text

_ADDED = 19  # permutations of the nulls of the added information


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    p = argparse.ArgumentParser("prunegen findings", description=__doc__.partition(": ")[2], allow_abbrev=False)
    p.add_argument("study", help="a judged workdir, or a folder with its results.csv and curves.csv")
    p.add_argument("--descent", help="another study, of networks of many sizes, for the question on double descent")
    p.add_argument("--out", help="folder for findings.md and a CSV per table; without it, findings.md is printed")
    p.add_argument("--target", default="gap", help="the target that the measures predict (default gap)")
    p.add_argument("--test_examples", type=int, default=0, metavar="N",
                   help="compute missing curves of the pruned test loss, on the first N test examples")  # fmt: skip
    p.add_argument("--data_dir", help="where TFDS finds its prepared data sets, if not in its default folder")
    p.add_argument("--draws", type=int, default=1000, help="bootstrap draws of the intervals (default 1000)")
    p.add_argument("--level", type=float, default=0.95, help="level of the intervals (default 0.95)")
    p.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default 0)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or prints the findings.

    Args:
        arguments: the command line; None for `sys.argv`.

    Returns:
        The exit status: 0, or 2 after one sentence on stderr about a wrong input.
    """
    options = parser().parse_args(arguments)
    try:
        check_backend()
        found = collect(options)
        if not options.out:
            print("\n".join(readable(line) for line in findings.markdown(found).split("\n")))
            return 0
        _write(epath.Path(options.out), found, curves.read_table(epath.Path(options.study)))
    except (ValueError, OSError) as error:
        print(readable(str(error)), file=sys.stderr)
        return 2
    print(f"wrote findings.md and {sum(bool(each.rows) for each in found)} tables to {options.out}")
    return 0


def collect(options: argparse.Namespace) -> list[Finding]:
    """All findings.

    Raises:
        ValueError: if a study has no results, or not the target.
        OSError: if files cannot be read.
    """
    folder = epath.Path(options.study)
    table, target = read_study(folder), options.target
    shared = {"draws": options.draws, "level": options.level, "seed": options.seed}
    verdict = judging.judge(table, targets=[target], added_permutations=_ADDED, baseline_draws=0, **shared)
    if options.test_examples:
        reasons = curves.make(folder, data_dir=options.data_dir, test_examples=options.test_examples)
        for name, reason in list(reasons.items())[:1]:
            print(f"{len(reasons)} networks have no curve; the first is {name}: {reason}", file=sys.stderr)
    drawn = curves.read_table(folder)
    found = [findings.ranking(verdict, target), findings.growth(table, target, **shared)]
    if options.descent:
        other = read_study(epath.Path(options.descent))
        quick = {"permutations": 0, "added_permutations": 0, "baseline_draws": 0}
        found += findings.descent(other, judging.judge(other, targets=["test_loss"], **quick, **shared))
    found += [findings.information(verdict, target), findings.pruned_test_loss(drawn)]
    return [*found, findings.choices(table, target, drawn, **shared)]


def _write(folder: epath.Path, found: Sequence[Finding], drawn: Mapping[str, Json]) -> None:
    """Writes the findings, and the curves behind them, which `read_table` reads without the workdir."""
    lines = curves.to_rows(drawn)
    texts = {"curves.csv": csv_text(*lines)} if lines[1] else {}
    texts |= {"findings.md": findings.markdown(found)}
    texts |= {f"{each.name}.csv": csv_text(*to_lines(each.rows)) for each in found if each.rows}
    for name, text in texts.items():
        with files.atomic(folder / name) as file:
            file.write(text.encode())
