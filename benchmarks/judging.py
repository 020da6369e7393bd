"""How long judging takes: 10,000 models, 324 models with everything, and against the obvious loop over pairs in Python.

    python benchmarks/judging.py          # everything, some ten minutes on two cores
    python benchmarks/judging.py --smoke  # few models: that it runs, not how fast

The last line is one JSON object: {"seconds_10000": s, "seconds_324": s, "vs_python": r, "seconds_10000_full": s,
"mib_10000_full": m, "zoo_networks_per_second": r}; 324 and 10,000_full are for one target, and the last is of
benchmarks/zoo.py. The seconds are of the wall clock; the table above it has CPU seconds too.
"""

import argparse
import itertools
import json
import math
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np

from prunegen_jax.judging import grid, information, judge, kendall
from prunegen_jax.judging.table import Table


def sweep(levels, measures, seed, *, coarse=0, counts=0):
    """A made-up full grid; the last measures are on the grid j/1000 (`coarse` of them) or counts with many ties."""
    rng = np.random.default_rng(seed)
    codes = np.array(list(itertools.product(*map(range, levels))), dtype=np.float64)
    n = len(codes)
    quality = codes @ rng.normal(size=len(levels)) + rng.normal(size=n)
    error = 0.1 + 0.2 / (1 + np.exp(-quality / quality.std())) + rng.normal(scale=0.005, size=n)
    columns = {}
    for i in range(measures):
        value = quality * rng.normal() + codes @ rng.normal(size=len(levels)) + 2 * rng.normal(size=n)
        if i >= measures - counts:
            value = np.round(value)
        elif i >= measures - counts - coarse:
            value = np.round(1 / (1 + np.exp(-value / value.std())), 3)
        columns[f"m{i:02d}"] = value
    if measures > 1:
        columns["prunability"] = columns.pop(f"m{measures - counts - 1:02d}")
    kinds = ("pruning", "margin", "flatness", "speed", "norms")
    return Table(
        names=tuple(map(str, range(n))),
        hyperparameters={f"axis{a}": codes[:, a] for a in range(len(levels))},
        measures=columns,
        targets={
            "gap": error - 0.01 * rng.random(n),
            "test_error": error,
            "test_loss": 2 * error + 0.1 * rng.random(n),
        },
        families={name: kinds[i % len(kinds)] for i, name in enumerate(columns)},
        test_size=10_000,
        confounders={"train_loss": rng.random(n), "batch_size": codes[:, 0]},
    )


def in_python(codes, measure, target):
    """tau-a, tau-b, Psi and K in one loop over ordered pairs, as one would write them down."""
    n, axes = len(measure), range(len(codes[0]))
    sets = [s for size in range(3) for s in itertools.combinations(axes, size)]
    agree = tied_m = tied_g = 0
    cells = [{} for _ in axes]
    counts = [{} for _ in sets]
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            a = (measure[i] > measure[j]) - (measure[i] < measure[j])
            b = (target[i] > target[j]) - (target[i] < target[j])
            agree += a * b
            tied_m += a == 0
            tied_g += b == 0
            differ = [x for x in axes if codes[i][x] != codes[j][x]]
            if len(differ) == 1:
                axis = differ[0]
                cell = cells[axis].setdefault(codes[i][:axis] + codes[i][axis + 1 :], [0, 0])
                cell[0] += a * b
                cell[1] += 1
            if a and b:
                for s, table in zip(sets, counts, strict=True):
                    key = (tuple(codes[i][x] for x in s), tuple(codes[j][x] for x in s))
                    table.setdefault(key, {}).setdefault((a, b), 0)
                    table[key][a, b] += 1
    pairs = n * (n - 1)
    psi = [sum(x / y for x, y in c.values()) / len(c) for c in cells]
    return (
        agree / pairs,
        agree / math.sqrt((pairs - tied_m) * (pairs - tied_g)),
        sum(psi) / len(psi),
        min(ratio(table) for table in counts),
    )


def ratio(table):
    shared = entropy = 0.0
    for cell in table.values():
        n = sum(cell.values())
        for b in (-1, 1):
            nb = sum(v for k, v in cell.items() if k[1] == b)
            entropy -= nb * math.log2(nb / n) if nb else 0.0
            for a in (-1, 1):
                na, nab = sum(v for k, v in cell.items() if k[0] == a), cell.get((a, b), 0)
                shared += nab * math.log2(nab * n / (na * nb)) if nab else 0.0
    return shared / entropy if entropy else math.inf


def vectorised(codes, measure, target):
    g = grid.Grid(tuple("abcde"[: codes.shape[1]]), codes, grid.combine(codes), np.zeros(len(codes), dtype=np.int64))
    return (
        kendall.tau(measure, target, kind="a"),
        kendall.tau(measure, target),
        kendall.granulated(measure, target, tuple(grid.pairs_along(g))).value,
        information.information(measure, target, information.conditions(codes)).minimum[0],
    )


def timed(function, *args, **kwargs):
    """The result, and the seconds of the wall clock and of the processor."""
    start, cpu = time.perf_counter(), time.process_time()
    return function(*args, **kwargs), time.perf_counter() - start, time.process_time() - cpu


def line(what, seconds, cpu):
    print(f"{what:<90}{seconds:>9.4g}{cpu:>9.4g}", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--smoke", action="store_true", help="few models: that it runs, not how fast")
    smoke = options.parse_args().smoke
    print(f"{'what':<90}{'seconds':>9}{'CPU s':>9}")
    large = sweep((5, 5, 4, 2, 2) if smoke else (5, 5, 4, 10, 10), 1, 0)
    none = {"draws": 0, "permutations": 0, "added_permutations": 0, "baseline_draws": 0}
    _, seconds_large, cpu = timed(judge, large, targets=["gap"], **none)
    line(f"one measure, {len(large)} models, {len(large.hyperparameters)} axes, every statistic", seconds_large, cpu)
    measures, draws = (5, 100) if smoke else (40, 1000)
    if smoke:
        middle = sweep((2, 2, 3), measures, 1, coarse=1, counts=1)
    else:
        middle = sweep((3, 2, 2, 3, 3, 3), measures, 1, coarse=6, counts=4)
    for targets in (None, ["gap"]):
        _, seconds_middle, cpu = timed(judge, middle, draws=draws, targets=targets)
        what = f"{measures} measures, {len(middle)} models, {len(targets or middle.targets)} target(s), {draws:,} draws"
        line(f"{what}, nulls, matrices", seconds_middle, cpu)
    table = sweep((5, 4, 4, 2) if smoke else (5, 5, 4, 5, 2), 1, 2, counts=1)
    codes = np.stack([grid.encode(v) for v in table.hyperparameters.values()], axis=1)
    (measure,), target = table.measures.values(), table.targets["gap"]
    loop, seconds_loop, cpu = timed(in_python, [tuple(c) for c in codes.tolist()], measure.tolist(), target.tolist())
    line(f"tau, Psi and K of {len(table)} models: loop over pairs in Python", seconds_loop, cpu)
    ours = min((timed(vectorised, codes, measure, target) for _ in range(3)), key=lambda result: result[1])
    if not np.allclose(loop, ours[0], rtol=1e-10, atol=1e-12):
        raise SystemExit(f"the loop finds {loop}, the vectorised statistics {ours[0]}")
    line("the same, vectorised: the same numbers to 1e-10", *ours[1:])
    measures, levels = (4, (5, 5, 4, 2, 2)) if smoke else (25, (5, 5, 4, 10, 10))
    full = sweep(levels, measures, 0, coarse=2, counts=1)
    _, seconds_full, cpu = timed(judge, full, targets=["gap"], draws=draws, permutations=99 if smoke else 999)
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    what = f"{measures} measures, {len(full)} models, 1 target, {draws:,} draws, nulls, matrices; {mib:.0f} MiB at most"
    line(what, seconds_full, cpu)
    found = {"seconds_10000": seconds_large, "seconds_324": seconds_middle, "vs_python": seconds_loop / ours[1]}
    found |= {"seconds_10000_full": seconds_full, "mib_10000_full": mib}
    if not smoke:  # zoo.py has a short form of its own
        zoo = [sys.executable, str(pathlib.Path(__file__).with_name("zoo.py"))]
        text = subprocess.run(zoo, check=True, capture_output=True, text=True).stdout
        print(text.rpartition("{")[0], end="")
        found |= json.loads(text.splitlines()[-1])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
