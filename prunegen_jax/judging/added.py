"""What measures share with each other, and what one adds to another: matrices of normalised mutual information."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import scipy.cluster.hierarchy

from prunegen_jax.judging.case import Case
from prunegen_jax.judging.information import Information, above, from_counts, information
from prunegen_jax.judging.nulls import Null, almost_untied, null_of_information, tie_pattern
from prunegen_jax.judging.parallel import Progress, threaded
from prunegen_jax.judging.prepared import PreparedOrder, prepare_order
from prunegen_jax.judging.statistics import RANKED_BY
from prunegen_jax.judging.verdict import Matrix, Row

_EMPTY = "S empty"
_LEAST = "least over |S| <= 2"
_AT_ONCE = 2**12  # models times measures that are counted together


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The configurations that the matrices are computed on.

    Attributes:
        case: the case of these configurations alone.
        halves: the cases of two halves of them, to estimate the error of the sample; none where it is everything.
    """

    case: Case
    halves: tuple[Case, ...] = ()

    def error(self, matrix: Callable[[Case], np.ndarray]) -> float:
        """Standard error that the sample brings to an entry of a matrix: half the root mean square difference of the
        matrices of the two halves.
        """
        one, two = (matrix(half) for half in self.halves)
        return float(np.sqrt(np.nanmean((one - two) ** 2)) / 2) if not np.isnan(one - two).all() else float("nan")


def sample(case: Case, *, seed: int, most: int) -> Sample:
    """All configurations of a case, or `most` of them drawn at random: their triples of orders cost n^2."""
    n = len(case.table)
    if n <= most:
        return Sample(case)
    chosen = np.random.default_rng([seed, 6]).permutation(n)[:most]

    def part(rows: np.ndarray) -> Case:
        rows = np.sort(rows)
        return dataclasses.replace(
            case, table=case.table.take(rows), grid=case.grid.take(rows), given=case.given.take(rows)
        )

    return Sample(part(chosen), (part(chosen[: most // 2]), part(chosen[most // 2 :])))


def shared(case: Case, names: list[str], *, progress: Progress | None = None) -> dict[str, Matrix]:
    """Information that every two measures share: I(V_row; V_column | U_S) / H(V_column | U_S), in [0, 1].

    Returns:
        "shared" for the empty S, "shared_least" the least over S, and "shared_symmetric" for the empty S with
        min(H_row, H_column) in the denominator.
    """
    n = len(names)
    plain, least, symmetric = np.full((3, n, n), np.nan)

    def row(i: int) -> list[Information]:
        """What the measure shares with itself and with those behind it."""
        one = case.table.measures[names[i]]
        return [_own(one, case)] + [
            information(one, case.table.measures[other], case.given) for other in names[i + 1 :]
        ]

    rows = threaded(row, range(n), what="shared information", progress=progress)
    for i, j in itertools.combinations_with_replacement(range(n), 2):
        both = rows[i][j - i]
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


def added(
    case: Case, target: str, names: list[str], *, permutations: int, seed: int, progress: Progress | None = None
) -> dict[str, Matrix]:
    """What each measure adds about a target to every other measure and to the confounders.

    That is I(V_row; V_g | V_column, U_S) / H(V_g | V_column, U_S), with the mean of its permutation null and a p-value.
    The null permutes the row's measure among all models.

    Args:
        case: the table.
        target: the target's name.
        names: the measures.
        permutations: draws of a null; 0 for no null.
        seed: of the permutations.
        progress: see `parallel.threaded`.

    Returns:
        "added_TARGET" for the empty S and "added_least_TARGET" for the least over S; their nulls' means
        "added_null_TARGET" and "added_least_null_TARGET", and p-values "added_p_TARGET" and "added_least_p_TARGET".
    """
    g = case.table.targets[target]
    columns = {name: case.table.measures[name] for name in names}
    columns |= {f"given {name}": values for name, values in case.table.confounders.items()}
    keys = ("", "_null", "_p", "_least", "_least_null", "_least_p")

    def column(label: str) -> np.ndarray:
        """What every measure adds to one column, by `keys`, `[keys, measures]`."""
        values = np.full((len(keys), len(names)), np.nan)
        nulls: dict[bytes, tuple[Null, Null]] = {}
        against = _Against(g, columns[label], case)
        for some in _alike({name: case.table.measures[name] for name in names if name != label}):
            both = against.information(np.stack([case.table.measures[name] for name in some]))
            rows = [names.index(name) for name in some]
            values[0, rows], values[3, rows] = both.normalised[:, 0], both.minima
            if not permutations or both.pairs == 0:
                continue
            for i, name in zip(rows, some, strict=True):
                stand_in = almost_untied(case.table.measures[name])
                key = tie_pattern(stand_in)
                if key not in nulls:
                    prepared, known = against.of_known(stand_in)
                    nulls[key] = null_of_information(known, prepared, permutations=permutations, seed=seed)
                for place, null in zip((0, 3), nulls[key], strict=True):
                    values[place + 1 : place + 3, i] = null.bias, null.p_value(values[place, i])
        return values

    found = threaded(column, list(columns), what=f"information added about {target}", progress=progress)
    values = dict(zip(keys, np.stack(found, axis=2), strict=True))
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


def _alike(measures: dict[str, np.ndarray]) -> list[list[str]]:
    """The measures by the models that they lack a value for and whether they have ties, a few at a time.

    Those are counted together: one at a time spends as long between the products of matrices as in them, and many no
    longer fit the processor's cache.
    """
    alike: dict[tuple[bytes, bool], list[str]] = {}
    for name, m in measures.items():
        known = m[~np.isnan(m)]
        alike.setdefault((np.isnan(m).tobytes(), len(np.unique(known)) == len(known)), []).append(name)
    step = max(1, _AT_ONCE // max(len(m) for m in measures.values())) if measures else 1
    return [same[i : i + step] for same in alike.values() for i in range(0, len(same), step)]


class _Against:
    """A target given a third order: what does not depend on the measure is done once."""

    def __init__(self, g: np.ndarray, third: np.ndarray, case: Case) -> None:
        self._g, self._third, self._case = g, third, case
        self._known = ~(np.isnan(g) | np.isnan(third))
        self._prepared = self._prepare(self._known)

    def of_known(self, m: np.ndarray) -> tuple[PreparedOrder, np.ndarray]:
        """The order prepared, and the measures `[..., n]`, of the models that have all three values.

        The measures lack a value for the same models.
        """
        missing = np.isnan(m if m.ndim == 1 else m[0])
        if not missing[self._known].any():
            return self._prepared, m[..., self._known]
        known = self._known & ~missing
        return self._prepare(known), m[..., known]

    def information(self, m: np.ndarray) -> Information:
        """I(V_m; V_g | V_third, U_S) of measures `[b, n]` that lack a value for the same models."""
        prepared, known = self.of_known(m)
        return from_counts(prepared.counts(known), prepared.given)

    def _prepare(self, known: np.ndarray) -> PreparedOrder:
        return prepare_order(self._g[known], self._case.given.take(known), third=self._third[known])


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
