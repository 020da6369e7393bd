"""What measures share with each other, and what one adds to another: matrices of normalised mutual information."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import scipy.cluster.hierarchy

from .case import Case
from .information import Information, above, fixed, from_counts, information
from .nulls import Null, almost_untied, null_of_information, tie_pattern
from .verdict import Matrix, Row

_SMALL = 2048  # models for which n^2 numbers are kept
_EMPTY = "S empty"
_LEAST = "least over |S| <= 2"


def shared(case: Case, names: list[str]) -> dict[str, Matrix]:
    """Information that every two measures share: I(V_row; V_column | U_S) / H(V_column | U_S), a share of the
    column's, in [0, 1], for the empty S, its symmetric form divided by min(H_row, H_column), and the least over S."""
    n = len(names)
    plain, least, symmetric = np.full((3, n, n), np.nan)
    for i, j in itertools.combinations_with_replacement(range(n), 2):
        one, two = case.table.measures[names[i]], case.table.measures[names[j]]
        both = information(one, two, case.given) if i != j else _own(one, case)
        for a, b, entropy in ((i, j, both.entropy_second), (j, i, both.entropy_first)):
            with np.errstate(invalid="ignore", divide="ignore"):
                ratios = np.where(entropy > 1e-12, np.minimum(both.shared / entropy, 1.0), np.nan)
            plain[a, b] = ratios[0]
            least[a, b] = np.nan if np.isnan(ratios).all() else np.nanmin(ratios)
        symmetric[i, j] = symmetric[j, i] = np.fmax(plain[i, j], plain[j, i])
    labels = tuple(names)
    meaning = "I(V_row; V_column | U_S) / H(V_column | U_S)"
    return {
        "shared": Matrix(labels, labels, plain, f"{meaning}, {_EMPTY}"),
        "shared_least": Matrix(labels, labels, least, f"{meaning}, {_LEAST}"),
        "shared_symmetric": Matrix(labels, labels, symmetric, "I(V_1; V_2) / min(H(V_1), H(V_2)), S empty"),
    }


def added(case: Case, target: str, names: list[str], *, permutations: int, seed: int) -> dict[str, Matrix]:
    """What each measure adds, to every other measure and to the confounders, about a target:
    I(V_row; V_g | V_column, U_S) / H(V_g | V_column, U_S), with the mean of its permutation null and a p-value.

    The null permutes the row's measure among all models.
    """
    g = case.table.targets[target]
    columns = {name: case.table.measures[name] for name in names}
    columns |= {f"given {name}": values for name, values in case.table.confounders.items()}
    shape = (len(names), len(columns))
    values = {key: np.full(shape, np.nan) for key in ("", "_null", "_p", "_least", "_least_null", "_least_p")}
    for j, (label, third) in enumerate(columns.items()):
        nulls: dict[bytes, tuple[Null, Null]] = {}
        compare = _against(g, third, case)
        for i, name in enumerate(names):
            if label == name:
                continue
            m = case.table.measures[name]
            found = compare(m)
            values[""][i, j], values["_least"][i, j] = found.normalised[0], found.minimum[0]
            if not permutations or found.pairs == 0:
                continue
            stand_in = almost_untied(m)
            key = tie_pattern(stand_in)
            if key not in nulls:
                nulls[key] = null_of_information(
                    stand_in, g, case.given, third=third, permutations=permutations, seed=seed
                )
            for part, null in zip(("", "_least"), nulls[key], strict=True):
                values[f"{part}_null"][i, j] = null.bias
                values[f"{part}_p"][i, j] = null.p_value(values[part][i, j])
    meaning = "I(V_row; V_g | V_column, U_S) / H(V_g | V_column, U_S)"
    suffixes = {"": "", "_null": ", mean of the permutation null", "_p": ", permutation p-value"}
    return {
        f"added{part}_{target}": Matrix(
            tuple(names),
            tuple(columns),
            table,
            f"{meaning}, {_LEAST if part.startswith('_least') else _EMPTY}{suffixes[part.removeprefix('_least')]}",
        )
        for part, table in values.items()
        if permutations or part in ("", "_least")
    }


def _against(g: np.ndarray, third: np.ndarray, case: Case) -> Callable[[np.ndarray], Information]:
    """A measure's information about `g` given `third`, with what does not depend on the measure done once."""
    known = ~(np.isnan(g) | np.isnan(third))
    conditions = case.given.take(known)
    prepared = fixed(g[known], conditions, third=third[known]) if known.sum() <= _SMALL else None

    def compare(m: np.ndarray) -> Information:
        if prepared is None or np.isnan(m[known]).any():
            return information(m, g, case.given, third=third)
        return from_counts(prepared.counts(m[known]), conditions)

    return compare


def _own(m: np.ndarray, case: Case) -> Information:
    """A measure's information about itself, which is its entropy: no pair disagrees."""
    conditions = case.given.take(~np.isnan(m))
    agree = above(m[~np.isnan(m)], conditions)
    return from_counts(np.stack([agree, np.zeros_like(agree)]), conditions)


def relatives_together(names: list[str], families: dict[str, str], symmetric: np.ndarray) -> list[int]:
    """An order of the measures: families stand together, and within a family those that share most."""
    order = []
    for family in dict.fromkeys(sorted(families.get(n, "") for n in names)):
        members = [i for i, n in enumerate(names) if families.get(n, "") == family]
        if len(members) > 2:
            distance = np.nan_to_num(1 - symmetric[np.ix_(members, members)], nan=1.0)
            condensed = distance[np.triu_indices(len(members), 1)]
            leaves = scipy.cluster.hierarchy.leaves_list(scipy.cluster.hierarchy.linkage(condensed, "average"))
            members = [members[i] for i in leaves]
        order += members
    return order


def arranged(matrix: Matrix, names: list[str]) -> Matrix:
    """The matrix with its measures in the order of `names`; other columns stay behind them."""
    rest = [c for c in matrix.columns if c not in names]
    columns = [n for n in names if n in matrix.columns] + rest
    values = matrix.values[np.ix_([matrix.rows.index(n) for n in names], [matrix.columns.index(c) for c in columns])]
    return Matrix(tuple(names), tuple(columns), values, matrix.meaning)


def by_family(
    rows: list[Row], target: str, families: dict[str, str], symmetric: Matrix, gain: Matrix, bias: Matrix | None
) -> list[Row]:
    """One row per family and target: its best measure, what its members share among themselves and with the others,
    and what they add to each other family, on average over members and less the null's mean."""
    label = {row["measure"]: families.get(row["measure"], "") or "no family" for row in rows}
    kinds = sorted(set(label.values()))
    surplus = gain.values - (0.0 if bias is None else bias.values)
    found = []
    for kind in kinds:
        own = [row for row in rows if row["target"] == target and label[row["measure"]] == kind]
        judged = [row for row in own if not np.isnan(row["tau_b"])]
        best = max(judged, key=lambda row: row["sign"] * row["tau_b"], default=None)
        inside = [i for i, n in enumerate(symmetric.rows) if label[n] == kind]
        outside = [i for i, n in enumerate(symmetric.rows) if label[n] != kind]
        row: Row = {"family": kind, "target": target, "measures": len(own)}
        row |= {"best": best["measure"] if best else "", "tau_b": best["tau_b"] if best else float("nan")}
        block = symmetric.values[np.ix_(inside, inside)]
        row["shared_within"] = _mean(block[~np.eye(len(inside), dtype=bool)])
        row["shared_with_others"] = _mean(symmetric.values[np.ix_(inside, outside)])
        for other in kinds:
            mine = [i for i, n in enumerate(gain.rows) if label[n] == kind]
            theirs = [j for j, n in enumerate(gain.columns) if label.get(n) == other]
            row[f"adds_to.{other}"] = _mean(surplus[np.ix_(mine, theirs)])
        found.append(row)
    return found


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
