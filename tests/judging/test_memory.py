"""Tables that are too large to judge are refused before they are judged; those that are not take what was said."""

import dataclasses
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from prunegen_jax.judging import judge, memory, robustness
from prunegen_jax.judging.case import prepare
from prunegen_jax.judging.comparison import Comparison
from prunegen_jax.judging.table import Table

NONE = {"draws": 0, "permutations": 0, "added_permutations": 0, "baseline_draws": 0}
SOME = {"draws": 20, "permutations": 1, "added_permutations": 0, "baseline_draws": 0}


def make_table(n, axes, *, measures=2):
    rng = np.random.default_rng(0)
    columns = {f"m{i}": rng.normal(size=n) for i in range(measures)}
    return Table(tuple(map(str, range(n))), axes, columns, {"gap": rng.normal(size=n)})


def every_value_once(n, count=1):
    return {f"axis{i}": np.random.default_rng(i).permutation(n).astype(np.float64) for i in range(count)}


def values(n, levels, count=1):
    """Axes of many values, each of which several models share."""
    return {f"axis{i}": np.random.default_rng(i).permutation(n) % float(levels) for i in range(count)}


def grid_of_three(n):
    return {"a": np.arange(n) % 5.0, "b": np.arange(n) // 5 % 4.0, "seed": np.arange(n) // 20.0}


@pytest.mark.parametrize(
    ("n", "axes", "measures", "options"),
    [
        (20_000, values(20_000, 5000), 2, NONE),
        (60_000, values(60_000, 15_000), 2, NONE),
        (8000, values(8000, 62, 3), 2, NONE),
        (20_000, grid_of_three(20_000), 2, SOME | {"repeats": "keep"}),
        (50, grid_of_three(50), 9000, NONE),
    ],
)
def test_too_large(n, axes, measures, options):
    """One sentence, after no more than a glance at the table."""
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=rf"judging {n} models and {measures} measures on .* the limit is 4 GB"
    ) as error:
        judge(make_table(n, axes, measures=measures), **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28 and str(error.value).isprintable()


def test_too_large_with_those_left_out():
    rest = make_table(20_000, values(20_000, 5000))
    table = make_table(40, {"axis0": np.arange(40) % 4.0})
    table = dataclasses.replace(table, left_out=tuple((n, "diverged") for n in rest.names), left_out_rows=rest)
    with pytest.raises(ValueError, match=r"judging 200\d\d models"):
        judge(table, **NONE)


@pytest.mark.parametrize(
    ("n", "axes", "options"),
    [
        (400, every_value_once(400), SOME),
        (800, values(800, 400), NONE),
        (400, values(400, 200), SOME),
        (200, every_value_once(200, 3), SOME),
        (1500, grid_of_three(1500), SOME | {"repeats": "keep"}),
    ],
)
def test_the_estimate_is_an_upper_one(n, axes, options):
    table = make_table(n, axes)
    case = prepare(table, repeats=options.get("repeats", "mean"))
    counts = {key: options[key] for key in ("draws", "permutations")}
    expected = memory.estimate(case.grid, case.models_grid, measures=2, **counts)
    del case
    tracemalloc.start()
    judge(table, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expected / 5 < peak < expected + 2**24


def test_a_random_search_of_two_thousand_networks_is_not_too_large():
    """Five continuous hyperparameters and 25 measures: no array grows with the square of their values."""
    table = make_table(2000, every_value_once(2000, 5), measures=25)
    tracemalloc.start()
    case = prepare(table, draws=1000, permutations=999)
    data = Comparison(case, "m0", "gap")
    assert data.least_information[0] >= 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28 and case.given.sets == ((),)
    with_bins = prepare(table, bins=4, draws=1000, permutations=999)
    assert len(with_bins.given.sets) == 16 and all(len(pairs.first) for pairs in with_bins.pairs)


def test_sign_errors_in_blocks_are_the_same():
    table = make_table(120, grid_of_three(120))
    case = prepare(table)
    m, g = case.models.measures["m0"], case.models.targets["gap"]
    kept = ~np.isnan(robustness.sign_error(m, g, case.plan, axes=2, minimum=1).losses)
    weights = np.random.default_rng(0).exponential(size=(7, 20))
    whole, parts = (
        robustness.weighted_sign_error(m, g, case.plan, weights, kept=kept, block=block) for block in (10**9, 200)
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-12, equal_nan=True)


def test_without_memory_there_is_a_sentence(tmp_path):
    """What the machine lacks is told like a wrong input."""
    n = 1500
    lines = [f"{i},{i % 700},{i * 7 % 701},{i * 11 % n},{i * 13 % n}" for i in range(n)]
    (tmp_path / "t.csv").write_text("\n".join(["name,hp.a,hp.b,m,gap", *lines]))
    code = "import resource, sys; from prunegen_jax.judging.__main__ import main; "
    code += "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
    code += "resource.setrlimit(resource.RLIMIT_AS, (used + 2**26,) * 2); sys.exit(main(sys.argv[1:]))"
    options = ["--draws=0", "--permutations=0", "--added-permutations=0", "--baseline-draws=0"]
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t.csv"), *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert "judging needs more memory than is available" in found.stderr
