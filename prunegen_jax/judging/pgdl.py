"""The score of the PGDL competition (NeurIPS 2020), as its scoring program computes it."""

from __future__ import annotations

import numpy as np

from prunegen_jax.judging.information import Conditions, above, conditions, count_cells


def pgdl_score(
    measure: np.ndarray, target: np.ndarray, codes: np.ndarray
) -> tuple[float, dict[tuple[int, ...], float]]:
    """The PGDL score: min over pairs of axes of mean_u I_u / mean_u H_u.

    The scorer differs from `information.py`: exactly two axes; a model is paired with itself too; a tie counts as
    "smaller"; every cell u has equal weight; the entropy has 1e-12 inside its logarithm.

    Args:
        measure: `[n]`.
        target: `[n]`.
        codes: integers of the axes of a complete grid, `[n, k]`, k >= 2.

    Returns:
        The score as a fraction (the competition reports it times 100, averaged over tasks), and the ratio of each pair
        of axes.

    Raises:
        ValueError: with fewer than two axes.
    """
    given = pgdl_conditions(codes)
    (both,) = count_cells(
        lambda rows: ((measure[rows, None] > measure) & (target[rows, None] > target))[None].astype(np.float32),
        len(measure),
        given,
    )
    ratios = score_by_pair(both, above(measure, given), above(target, given), given)
    return float(ratios.min()), dict(zip(given.sets, ratios.tolist(), strict=True))


def pgdl_conditions(codes: np.ndarray) -> Conditions:
    """The pairs of axes that the scorer conditions on, of `codes [n, k]`.

    Raises:
        ValueError: with fewer than two axes.
    """
    if codes.shape[1] < 2:
        raise ValueError(f"the PGDL score conditions on two axes; the table has {codes.shape[1]}")
    return conditions(codes, smallest=2)


def score_by_pair(both: np.ndarray, up: np.ndarray, more: np.ndarray, given: Conditions) -> np.ndarray:
    """The ratio of each pair of axes `[..., sets]`, from counts of pairs of models by cell.

    Args:
        both: pairs with m_i > m_j and g_i > g_j, `[..., cells]`.
        up: pairs with m_i > m_j, `[..., cells]`.
        more: pairs with g_i > g_j, `[cells]`.
        given: the pairs of axes.
    """
    in_cell = given.pairs
    joint = np.stack([[both, more - both], [up - both, in_cell - up - more + both]]) / in_cell  # [gap, measure, cell]
    gap, own = joint.sum(axis=1), joint.sum(axis=0)
    expected = gap[:, None] * own[None, :]
    occurs = joint > 0
    shared = (joint * np.log2(np.where(occurs, joint, 1) / np.where(occurs, expected, 1))).sum(axis=(0, 1))
    entropy = -(gap * np.log2(gap + 1e-12)).sum(axis=0)
    # dividing sums by sums: the cells of one pair of axes have equal weight, and are as many above as below
    return np.maximum(np.add.reduceat(shared, given.starts, axis=-1), 0) / np.add.reduceat(
        entropy, given.starts, axis=-1
    )
