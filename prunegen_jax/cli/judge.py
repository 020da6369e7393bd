"""`prunegen judge`, also `python -m prunegen_jax.judging`: judges a table, or the files of the PGDL competition."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from prunegen_jax.judging import Table, describe, format_table, judge
from prunegen_jax.runs.tables import read_csv, read_pgdl
from prunegen_jax.runs.tables.text_files import readable
from prunegen_jax.runs.tables.verdict_files import write

_EXAMPLES = """examples:
  python -m prunegen_jax.judging results.csv --target=gap --hyperparameters='hp*' --out=verdict
  python -m prunegen_jax.judging --pgdl model_configs.json --predictions=a.predict,b.predict --out=verdict"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        """One sentence on stderr and a non-zero exit, without the usage in front of it."""
        self.exit(2, f"{message}; see --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    p = _Parser(
        prog="python -m prunegen_jax.judging",
        description="Judges how well each measure of a table predicts generalization, and what information it adds.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "table",
        nargs="?",
        help="a CSV with a header line and one model per line (may be compressed, .gz), "
        "a Parquet file, the folder of a model zoo, or a PGDL model_configs.json",
    )
    p.add_argument(
        "--target",
        action="append",
        help="shell patterns, separated by commas, of the columns to predict: larger = worse; accuracies become errors",
    )
    p.add_argument("--higher-is-better", action="store_true", help="larger is better in the columns of --target")
    p.add_argument("--hyperparameters", action="append", help="shell patterns of the columns that the sweep varied")
    p.add_argument("--measures", action="append", help="shell patterns of the columns to judge")
    p.add_argument("--step", type=int, help="the step of each training run to judge (default: the last)")
    p.add_argument("--pgdl", metavar="CONFIGS", help="model_configs.json of a PGDL task, instead of a table")
    p.add_argument("--predictions", default="", help=".predict files, separated by commas (default: all in the folder)")
    p.add_argument("--out", help="folder for verdict.csv, verdict.json and the matrices")
    p.add_argument("--test-size", type=int, help="number of test examples, for the noise of the targets")
    p.add_argument(
        "--repeats", default="mean", help="'mean' averages the repeats of a configuration, 'keep' judges each"
    )
    p.add_argument("--reference", default="prunability", help="the measure that all others are compared with")
    p.add_argument("--negative", default="", help="patterns of measures expected to fall as the target grows")
    p.add_argument("--family", action="append", default=[], metavar="NAME=PATTERNS", help="measures that form a family")
    p.add_argument("--signature", action="append", default=[], metavar="NAME=PATTERNS", help="measures fitted together")
    p.add_argument(
        "--order", action="append", default=[], metavar="AXIS=V1,V2", help="values in order of increasing target"
    )
    p.add_argument("--environments", default="auto", help="of the sign error: 'auto', 'configurations' or 'values'")
    p.add_argument("--bins", type=int, help="number of bins for each hyperparameter with more values than that")
    for name, default, text in (
        ("draws", 1000, "bootstrap draws of the intervals"),
        ("permutations", 999, "permutations for the nulls of K and of the PGDL score"),
        ("added-permutations", 19, "permutations for the nulls of the added information"),
        ("baseline-draws", 20, "draws of each baseline"),
        ("folds", 10, "folds of the k-fold R2"),
        ("seed", 0, "seed of all random numbers"),
    ):
        p.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    p.add_argument("--report", action="store_true", help="also write OUT/report/index.html; needs --out")
    p.add_argument("--level", type=float, default=0.95, help="level of the intervals (default 0.95)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Judges a table, prints and writes the verdict.

    Args:
        arguments: the command line; None for `sys.argv`.

    Returns:
        The exit status: 0, or 2 after one sentence on stderr about a wrong input.
    """
    options = parser().parse_args(arguments)
    try:
        if options.report and not options.out:
            raise ValueError("--report needs --out=DIR, the folder for the report")
        table = _table(options)
        _check_out(options.out)
        verdict = judge(
            table,
            repeats=options.repeats,
            reference=options.reference,
            signatures={
                name: _match_measures(name, patterns, table.measures, "--signature")
                for name, patterns in _split_entries(options.signature, "--signature")
            },
            orders={axis: values.split(",") for axis, values in _split_entries(options.order, "--order")},
            environments=options.environments,
            bins=options.bins,
            draws=options.draws,
            permutations=options.permutations,
            added_permutations=options.added_permutations,
            baseline_draws=options.baseline_draws,
            folds=options.folds,
            level=options.level,
            seed=options.seed,
            progress=_Bar(table.notes),
        )
    except ValueError as error:
        print(readable(str(error)), file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"judging needs more memory than is available ({error}); judge fewer models or measures", file=sys.stderr)
        return 2
    _print("\n".join(f"note: {note}" for note in verdict.notes if note not in table.notes))
    for target in verdict.targets:
        _print(f"\n{format_table(verdict, target=target)}\n\n{textwrap.fill(describe(verdict, target=target), 120)}")
    if options.out:
        paths = write(verdict, options.out)
        _print(f"\nwrote {len(paths)} files to {options.out}, among them verdict.csv and verdict.json")
    if options.report:
        from prunegen_jax import report  # noqa: PLC0415 - plotting takes seconds to import

        title = Path(options.table or options.pgdl).name
        _print(f"report: {report.write_for_table(table, verdict, options.out, title=title)}")
    return 0


class _Bar:
    """Prints how the columns of a table are used, and shows a progress bar for each part of the judgement."""

    def __init__(self, notes: Sequence[str]) -> None:
        self._bar = None
        self._notes = notes

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None:  # nothing is wrong with the input, and the work begins
            _print("\n".join(f"note: {note}" for note in self._notes))
            self._bar = tqdm(total=total, file=sys.stderr, leave=False, disable=None)
        if done == 0:
            self._bar.reset(total)
            self._bar.set_description(readable(what))
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.refresh()


def _print(text: str) -> None:
    """Prints text that contains names from a file, without characters that a terminal interprets as commands."""
    try:
        print("\n".join(readable(line) for line in text.split("\n")), flush=True)
    except BrokenPipeError:  # the reader has stopped, as `head` does; the files are still to be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _table(options: argparse.Namespace) -> Table:
    """The table that the command line names, with families and signs."""
    if options.table is not None and options.pgdl is None and options.table.endswith("model_configs.json"):
        options.table, options.pgdl = None, options.table
    if (options.table is None) == (options.pgdl is None):
        raise ValueError("give either a table or --pgdl; see --help")
    if options.pgdl is None:
        if options.predictions:
            raise ValueError("--predictions needs --pgdl; a table has its measures as columns")
        columns = {
            name: ",".join(patterns) if (patterns := getattr(options, name)) else None
            for name in ("target", "hyperparameters", "measures")
        }
        columns["higher_is_better"] = options.higher_is_better
        table = read_csv(options.table, **columns, test_size=options.test_size, step=options.step)
    else:
        table = read_pgdl(options.pgdl, [p for p in options.predictions.split(",") if p])
        if options.target is not None:
            names = ",".join(options.target).split(",")
            missing = [t for t in names if t not in table.targets]
            if missing:
                raise ValueError(
                    f"--target: a PGDL task has no {missing[0]!r}; its targets are {', '.join(table.targets)}"
                )
            table = dataclasses.replace(table, targets={t: table.targets[t] for t in names})
        table = dataclasses.replace(table, test_size=options.test_size)
    families = {
        measure: family
        for family, patterns in _split_entries(options.family, "--family")
        for measure in _match_measures(family, patterns, table.measures, "--family")
    }
    negative = _match_measures("", options.negative, table.measures, "--negative") if options.negative else []
    return dataclasses.replace(table, families=families, signs=dict.fromkeys(negative, -1))


def _split_entries(entries: Sequence[str], option: str) -> list[tuple[str, str]]:
    """The entries of an option that may be given several times, split at "="."""
    for entry in entries:
        if "=" not in entry:
            raise ValueError(f"{option} is {entry!r}; it must have the form NAME=VALUES")
    return [(name, values) for name, _, values in (entry.partition("=") for entry in entries)]


def _match_measures(name: str, patterns: str, measures: Sequence[str], option: str) -> list[str]:
    """The measures that match one of some patterns."""
    matches = [m for m in measures if any(fnmatch.fnmatchcase(m, p.strip()) for p in patterns.split(","))]
    if not matches:
        raise ValueError(f"{option} {name}: no measure matches {patterns!r}; the measures are {', '.join(measures)}")
    return matches


def _check_out(out: str | None) -> None:
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"--out={out} is a file; it must be a folder, which is created if missing")
