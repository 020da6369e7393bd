"""The report of a running sweep: refreshed at intervals, without slowing down or stopping the sweep."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable

from etils import epath

from prunegen_jax import judging
from prunegen_jax.judging import Verdict
from prunegen_jax.judging.table import Table
from prunegen_jax.report import material, page
from prunegen_jax.runs import files, workdir
from prunegen_jax.runs.tables.text_files import readable

_SHARE = (
    10.0  # a refresh waits at least this many times as long as the last one took: a tenth of a sweep's time at most
)
_FEWEST = 2  # networks that can be compared
# Intervals, nulls and baselines take long: they are computed at the end of the sweep.
_QUICK = {"draws": 0, "permutations": 0, "added_permutations": 0, "baseline_draws": 0}


class Refresher:
    """Writes the page of a workdir at intervals, from the records that exist; a function to call as often as you like.

    It judges without intervals and nulls, computes no curves, draws no figures or tables, writes nothing but
    `report/index.html`, and prints errors to stderr instead of raising them.

    Args:
        folder: the workdir.
        seconds: between refreshes; 0 for never.
        total: the networks of the sweep.
        read: gives the table of the workdir's records.
        clock: seconds, for tests.

    Raises:
        ValueError: if `seconds` is negative.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        seconds: float,
        *,
        total: int,
        read: Callable[[epath.Path], Table],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if seconds < 0:
            raise ValueError(f"report_every is {seconds}; it must be 0 (never) or a positive number of seconds")
        self._folder, self._seconds, self._total = epath.Path(folder), seconds, total
        self._read, self._clock, self._due = read, clock, clock() + seconds

    def __call__(self) -> bool:
        """Refreshes the page if it is time; returns whether it did."""
        if not self._seconds or self._clock() < self._due:
            return False
        begin = self._clock()
        try:
            self._refresh()
        except (ValueError, OSError) as error:
            print(f"the report is not refreshed: {readable(str(error))}", file=sys.stderr)
        took = self._clock() - begin
        self._due = self._clock() + max(self._seconds, _SHARE * took)
        return True

    def _refresh(self) -> None:
        table = self._read(self._folder)
        known = len(table) + len(table.left_out)
        remark = f"The sweep is running: {known} of {self._total} networks are trained. "
        remark += "Intervals and nulls are computed at the end."
        if not table.measures:
            table = dataclasses.replace(table, measures=table.confounders)
            remark += " No measure is computed yet: the table shows quantities known from training instead."
        verdict = quick_verdict(table)
        content = material.from_workdir(self._folder, verdict=verdict, table=table, remark=remark)
        with files.atomic(workdir.report_path(self._folder) / "index.html", within=self._folder) as file:
            file.write(page.html(content).encode())


def quick_verdict(table: Table) -> Verdict:
    """The verdict on the existing records, without the parts that take long.

    Raises:
        ValueError: if there are too few networks to compare.
    """
    if len(table) < _FEWEST:
        raise ValueError(f"{len(table)} networks can be judged so far; a report needs {_FEWEST}")
    return judging.judge(table, **_QUICK)
