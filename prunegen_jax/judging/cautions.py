"""What has to be said beside a measure's numbers: the edge of its range, the ceiling, and that two measures are one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from prunegen_jax.judging.case import Case
from prunegen_jax.judging.statistics import RANKED_BY
from prunegen_jax.judging.verdict import Row

EDGE = 0.1  # share of the networks at one end of a measure's range from which it is said
# Measures that are equal by identity, and where; they count as one where the table agrees to within their errors.
IDENTITIES = {
    ("hessian_trace", "gauss_newton_trace"): "tr H = tr G if the network is piecewise linear in each layer's weights"
}
_AGREEMENT = 0.1  # relative; the default standard error of a trace is 2 %


def edge(values: np.ndarray) -> tuple[float, float]:
    """The share of the values `[n]` tied at the smallest or at the largest, whichever is more; and that value.

    `nan` is left out. One value alone at an end is not tied: (0, `nan`) if that is so at both ends.
    """
    known = values[~np.isnan(values)]
    ends = [(int((known == end).sum()), float(end)) for end in (known.max(), known.min())] if len(known) else []
    count, value = max(ends, default=(0, np.nan), key=lambda pair: pair[0])
    return (count / len(known), value) if count > 1 else (0.0, float("nan"))


def same_measures(case: Case, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """For each measure that is one with an earlier one of `names`: that one's name, and -1 if the order is reversed.

    Two are one if they order the configurations equally, or in exactly opposite ways: every statistic of order is then
    the same up to its sign. And if they are equal by one of `IDENTITIES`, and differ by less than a tenth everywhere.
    """
    firsts: dict[bytes, tuple[str, int]] = {}
    same: dict[str, tuple[str, int]] = {}
    for name in names:
        if len(np.unique(case.table.measures[name])) < 2:  # a constant orders nothing
            continue
        order, turn = _order(case.table.measures[name])
        first, first_turn = firsts.setdefault(order, (name, turn))
        if first != name:
            same[name] = first, turn * first_turn
    for one, two in itertools.chain.from_iterable(itertools.combinations(group, 2) for group in IDENTITIES):
        if one in names and two in names and _agree(case.models.measures[one], case.models.measures[two]):
            ends = same.get(one, (one, 1)), same.get(two, (two, 1))
            (first, _), (second, _) = sorted(ends, key=lambda end: list(names).index(end[0]))
            if first != second:
                turn = ends[0][1] * ends[1][1]
                members = {n: way for n, (f, way) in same.items() if f == second} | {second: 1}
                same |= {n: (first, way * turn) for n, way in members.items()}
    return same


def warnings(rows: Sequence[Row], ceilings: Sequence[Row]) -> list[Row]:
    """One row per measure, target and caution: "measure", "target", "kind" ("edge", "ceiling" or "same"), "text".

    Args:
        rows: the rows of the verdict.
        ceilings: its ceilings.
    """
    found: list[Row] = []
    for row in rows:
        said = {"edge": _of_edge(row), "ceiling": _of_ceiling(row, ceilings), "same": _of_same(row)}
        about = {key: row[key] for key in ("measure", "target")}
        found += [about | {"kind": kind, "text": text} for kind, text in said.items() if text]
    return found


def _of_edge(row: Row) -> str:
    if not row["edge_share"] > EDGE:
        return ""
    tied = f"{row['edge_share']:.0%} of the networks are tied at {row['edge_value']:.4g}, an end of its range"
    return f"{tied}: it cannot tell them apart"


def _of_ceiling(row: Row, ceilings: Sequence[Row]) -> str:
    taus = [c["tau_b"] for c in ceilings if c["target"] == row["target"] and not np.isnan(c["tau_b"])]
    tau = row["sign"] * row[RANKED_BY]
    if not taus or not tau > min(taus):
        return ""
    return f"its tau-b {tau:.2f} is above the ceiling {min(taus):.2f}, the expected tau-b of a perfect measure"


def _of_same(row: Row) -> str:
    if not row["same_as"]:
        return ""
    other, once = row["same_as"], "corrected p-values count the two once"
    for names, words in IDENTITIES.items():
        if {row["measure"], other} <= set(names):
            return f"the same measure as {other} ({words}): {once}"
    return f"gives {'the reverse order of' if row['same_order'] < 0 else 'the same order as'} {other}: {once}"


def _order(values: np.ndarray) -> tuple[bytes, int]:
    """What is equal for columns that order the models equally, or in exactly opposite ways, and 1 or -1 by the way."""
    missing = np.isnan(values)
    ranks = np.zeros(len(values), dtype=np.int64)
    ranks[~missing] = np.unique(values[~missing], return_inverse=True)[1]
    turned = np.where(missing, 0, ranks.max(initial=0) - ranks)
    way = 1 if ranks.tobytes() <= turned.tobytes() else -1
    return missing.tobytes() + (ranks if way > 0 else turned).tobytes(), way


def _agree(one: np.ndarray, two: np.ndarray) -> bool:
    known = np.isfinite(one) & np.isfinite(two)
    larger = np.maximum(np.abs(one), np.abs(two))[known]
    return bool(known.any() and (np.abs(one - two)[known] <= _AGREEMENT * larger).all())
