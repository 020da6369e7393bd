"""Writes docs/networks.csv: which measures apply to which networks of the tests, and why the others do not.

    python -m docs.make_table                                  # what is missing: new measures, new networks
    python -m docs.make_table --again                          # all of it: an hour
    python -m docs.make_table "NNX CNN" "MLP on a table"       # of these networks alone

Each measure has two rows: given "everything" (initial state, first epoch, history) and "network and data" alone. A
column is a network; a cell is "ok" or the reason. The file is written after every cell, so that a run that was stopped
goes on. A measure that fails leaves its cell empty. docs/measures.md, which shows the table, is written at the end.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
import time

import jax

from docs.make_measures import EVERYTHING, NETWORK_AND_DATA, PAGE, TABLE, Column, load, page
from prunegen_jax.measures import MEASURES, measure
from prunegen_jax.runs.files import atomic
from tests import conftest  # noqa: F401  the tests' settings of XLA, and so their compilation cache
from tests.support.any_network_cases import NETWORKS, SHORT, trained
from tests.support.compilations import drop_many_programs

ROWS = [(name, given) for name in MEASURES for given in (EVERYTHING, NETWORK_AND_DATA)]


def cell(kind: str, name: str, given: str) -> str:
    """Whether a measure applies to a network: "ok" or the reason.

    Args:
        kind: a name of `NETWORKS`.
        name: of a measure.
        given: what the measure is given, `EVERYTHING` or `NETWORK_AND_DATA`.

    Raises:
        RuntimeError: if the measure fails, or its value is neither finite nor censored.
    """
    drop_many_programs()
    model = trained(kind, complete=given == EVERYTHING)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # Flax's own layers need it
        estimate = measure(model, name, options={name: SHORT[name]} if name in SHORT else {})[name]
    is_number = math.isfinite(estimate.value) or estimate.details.get("censored", False)
    if estimate.status == "failed" or (estimate.status == "ok" and not is_number):
        raise RuntimeError(f"{name} of {kind}, given {given}: {estimate.value} {estimate.reason}")
    return estimate.reason or "ok"


def save(columns: dict[str, Column]) -> None:
    """Writes the table, its measures and networks in the order of `MEASURES` and `NETWORKS`."""
    kinds = [kind for kind in NETWORKS if kind in columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["measure", "given", *kinds])
    writer.writerows([*row, *(columns[kind].get(row, "") for kind in kinds)] for row in ROWS)
    with atomic(TABLE) as file:
        file.write(text.getvalue().encode())


def main() -> int:
    """Computes and writes what the arguments ask for; returns 1 if a measure failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--again", action="store_true", help="computes what is there, too")
    arguments = parser.parse_args()
    kinds = arguments.networks or list(NETWORKS)
    if unknown := sorted({*kinds} - {*NETWORKS}):
        parser.error(f"unknown networks {', '.join(unknown)}; choose among {', '.join(NETWORKS)}")
    failed = False
    for kind in kinds:
        column = {} if arguments.again else load().get(kind, {})
        for row in ROWS:
            if row in column:
                continue
            start = time.perf_counter()
            try:
                column[row] = cell(kind, *row)
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                failed = True
            else:
                print(f"{kind}: {', '.join(row)}: {time.perf_counter() - start:.1f} s", flush=True)
                save(load() | {kind: column})
    PAGE.write_text(page(), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
