"""What measures share with each other, and what one adds to another: matrices of normalised mutual information."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import scipy.cluster.hierarchy

from prunegen_jax.judging.case import Case
from prunegen_jax.judging.information import Information, above, from_counts, information
from prunegen_jax.judging.nulls import Null, almost_untied, null_of_information, tie_pattern
from prunegen_jax.judging.prepared import prepare_order
from prunegen_jax.judging.statistics import RANKED_BY
from prunegen_jax.judging.verdict import Matrix, Row

_SMALL = 2048  # models for which n^2 numbers are kept
_EMPTY = "S empty"
_LEAST = "least over |S| <= 2"


def shared(case: Case, names: list[str]) -> dict[str, Matrix]:
    """Information that every two measures share: I(V_row; V_column | U_S) / H(V_column | U_S), in [0, 1].

    Returns:
        "shared" for the empty S, "shared_least" the least over S, and "shared_symmetric" for the empty S with
        min(H_row, H_column) in the denominator.
    """
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
    """What each measure adds about a target to every other measure and to the confounders.

    That is I(V_row; V_g | V_column, U_S) / H(V_g | V_column, U_S), with the mean of its permutation null and a p-value.
    The null permutes the row's measure among all models.

    Args:
        case: the table.
        target: the target's name.
        names: the measures.
        permutations: draws of a null; 0 for no null.
        seed: of the permutations.

    Returns:
        "added_TARGET" for the empty S and "added_least_TARGET" for the least over S; their nulls' means
        "added_null_TARGET" and "added_least_null_TARGET", and p-values "added_p_TARGET" and "added_least_p_TARGET".
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
            both = compare(m)
            values[""][i, j], values["_least"][i, j] = both.normalised[0], both.minimum[0]
            if not permutations or both.pairs == 0:
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
    prepared = prepare_order(g[known], conditions, third=third[known]) if known.sum() <= _SMALL else None

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


def family_order(names: list[str], families: dict[str, str], symmetric: np.ndarray) -> list[int]:
    """Indices of the measures family by family, and within a family by how much they share."""
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


def reorder(matrix: Matrix, names: list[str]) -> Matrix:
    """The matrix with its measures in the order of `names`, and its other columns behind them."""
    rest = [c for c in matrix.columns if c not in names]
    columns = [n for n in names if n in matrix.columns] + rest
    values = matrix.values[np.ix_([matrix.rows.index(n) for n in names], [matrix.columns.index(c) for c in columns])]
    return Matrix(tuple(names), tuple(columns), values, matrix.meaning)


def by_family(
    rows: list[Row], target: str, families: dict[str, str], symmetric: Matrix, gain: Matrix, bias: Matrix | None
) -> list[Row]:
    """What each family of measures shares and adds, one row per family.

    Args:
        rows: the verdict's rows.
        target: the target's name.
        families: family by measure.
        symmetric: the matrix "shared_symmetric".
        gain: the matrix "added_TARGET".
        bias: the matrix "added_null_TARGET", whose entries are subtracted; None for none.

    Returns:
        Per family its best measure, what its members share with each other and with the rest, and what they add to
        each family, on average over members.
    """
    label = {row["measure"]: families.get(row["measure"], "") or "no family" for row in rows}
    kinds = sorted(set(label.values()))
    surplus = gain.values - (0.0 if bias is None else bias.values)
    result = []
    for kind in kinds:
        members = [row for row in rows if row["target"] == target and label[row["measure"]] == kind]
        judged = [row for row in members if not np.isnan(row[RANKED_BY])]
        best = max(judged, key=lambda row: row["sign"] * row[RANKED_BY], default=None)
        inside = [i for i, n in enumerate(symmetric.rows) if label[n] == kind]
        outside = [i for i, n in enumerate(symmetric.rows) if label[n] != kind]
        row: Row = {"family": kind, "target": target, "measures": len(members)}
        row |= {"best": best["measure"] if best else "", RANKED_BY: best[RANKED_BY] if best else float("nan")}
        block = symmetric.values[np.ix_(inside, inside)]
        row["shared_within"] = _mean(block[~np.eye(len(inside), dtype=bool)])
        row["shared_with_others"] = _mean(symmetric.values[np.ix_(inside, outside)])
        for other in kinds:
            adding = [i for i, n in enumerate(gain.rows) if label[n] == kind]
            known = [j for j, n in enumerate(gain.columns) if label.get(n) == other]
            row[f"adds_to.{other}"] = _mean(surplus[np.ix_(adding, known)])
        result.append(row)
    return result


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
