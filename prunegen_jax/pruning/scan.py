"""The search through pruning masks: losses are summed, hardest examples first, until the sum proves a failure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep, trees
from prunegen_jax.compute.evaluation import batches, concatenate_batches, losses_of
from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.compute.planes import as_partial
from prunegen_jax.pruning.masks import Scores, apply_mask, drop_positions
from prunegen_jax.types import Apply, Dataset, PyTree

# A sum of float32 losses taken in another batching agrees to far better than this, relatively; a mask whose sum is
# that close to the limit is judged by an evaluation batched just as the dense one.
_SLACK = 1e-4

Keep = tuple[int, ...]


@lockstep.jit
def _costs(
    apply: Any,
    params: PyTree,
    leaves: Any,
    masks: jax.Array,
    keeps: jax.Array,
    data: Dataset,
    indices: jax.Array,
    count: jax.Array,
    *,
    error: jax.Array,
) -> jax.Array:
    """Loss (or `error []`) `[lanes, n]` of examples `indices [n]` under masks `[lanes]` at counts `[lanes, leaves]`.

    Of the first `count` lanes; what the others get is not defined. `count` and `error` are traced, so that any number
    of masks and both criteria share one program: compiling takes longer than computing one of them.
    """
    images, labels = data.take(indices)

    def one(mask: jax.Array, keep: jax.Array) -> jax.Array:
        chosen = tuple(None if leaf is None else leaf[mask] for leaf in leaves)
        return _example_costs(apply, apply_mask(params, chosen, keep), data, images, labels, error)

    return _map_lanes(one, count, len(indices), masks, keeps)


@functools.partial(lockstep.jit, static_argnames="prunable")
def _costs_without(
    apply: Any,
    params: PyTree,
    dropped: jax.Array,
    data: Dataset,
    indices: jax.Array,
    count: jax.Array,
    *,
    prunable: tuple[bool, ...],
    error: jax.Array,
) -> jax.Array:
    """`_costs` `[lanes, n]` without the parameters at positions `dropped [lanes, d]` of the `prunable` leaves."""
    images, labels = data.take(indices)

    def one(positions: jax.Array) -> jax.Array:
        return _example_costs(apply, drop_positions(params, positions, prunable), data, images, labels, error)

    return _map_lanes(one, count, len(indices), dropped)


def _example_costs(
    apply: Any, params: PyTree, data: Dataset, images: jax.Array, labels: jax.Array, error: jax.Array
) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        logits = apply(params, images).astype(jnp.float32)
    losses = losses_of(data, logits, labels)
    if data.loss is not None:  # regression, for example: no error is defined
        return losses
    return jnp.where(error, (jnp.argmax(logits, axis=-1) != labels).astype(losses.dtype), losses)


def _map_lanes(function: Callable[..., jax.Array], count: jax.Array, size: int, *lanes: jax.Array) -> jax.Array:
    """`function` `[lanes, size]` of each of the first `count` lanes."""
    if jax.default_backend() != "cpu":
        return jax.vmap(function)(*lanes)

    # A core gains nothing from vmap, but one call for many masks saves time.
    def body(i: jax.Array, results: jax.Array) -> jax.Array:
        return results.at[i].set(function(*(lane[i] for lane in lanes)))

    return jax.lax.fori_loop(0, count, body, jnp.zeros((len(lanes[0]), size)))


class Scan:
    """Costs of one network under the masks of `scores`, over `data`; counts the examples it evaluates.

    It remembers how hard each example was under the latest masks that passed the first examples, and starts with the
    hardest: neighbouring masks fail on the same ones.
    """

    def __init__(
        self, apply: Apply, params: PyTree, scores: Scores, data: Dataset, criterion: str, lanes: int | None
    ) -> None:
        check_choice("criterion", criterion, ("loss", "error"))
        if criterion == "error" and data.loss is not None:
            raise ValueError("criterion='error' is for classification only: the data set has a loss of its own")
        if lanes is not None:
            check_at_least(1, lanes=lanes)
        self.scores = scores
        self.examples = 0
        # On a CPU a call takes its masks one after another, and any number of them: it only saves the calls. Elsewhere
        # they run together.
        self._one_by_one = jax.default_backend() == "cpu"
        self._lanes = lanes or (16 if self._one_by_one else 64)
        self._stretch_lanes = self._lanes // (4 if self._one_by_one else 8)
        self.size = len(data)
        # As many at first as prove most failures at a target of 0.01 nats, then eight times as many at a time;
        # functions of N alone, so that networks of equal shape share programs.
        self._first = int(np.clip(2 ** round(np.log2(self.size / 64)), min(4, self.size), 4096))
        self._stretch = min(8 * self._first, self.size)
        error = np.asarray(criterion == "error")
        self._costs = functools.partial(_costs, as_partial(apply), params, scores.leaves, error=error)
        self._costs_without = functools.partial(
            _costs_without,
            as_partial(apply),
            params,
            prunable=tuple(leaf is not None for leaf in scores.leaves),
            error=error,
        )
        self._data = data
        self._parameters = trees.count(params)
        self._dense = self._full((2**31 - 1,) * len(scores.sizes), 0)
        self._hardness = self._dense.astype(np.float64)
        self._order = np.argsort(-self._hardness, kind="stable")

    def dense(self) -> float:
        """The criterion of the network as it is."""
        return float(self._dense.sum(dtype=np.float64)) / self.size

    def of_all(self, kept: float) -> float:
        """The fraction of all parameters that stays when `kept` of the prunable ones do."""
        return (self._parameters - self.scores.prunable + kept) / self._parameters

    def exact(self, keep: Keep, mask: int) -> float:
        """The criterion over the whole set, batched just as `dense` is."""
        return float(self._full(keep, mask).sum(dtype=np.float64)) / self.size

    def without(self, dropped: np.ndarray) -> np.ndarray:
        """The criterion `[n]` over the whole set without some parameters.

        Args:
            dropped: positions `[n, d]` among the p prunable parameters, in the order of the leaves; p fills up.
        """
        width = 1 << max(3, (dropped.shape[1] - 1).bit_length())  # few widths, so that networks share programs
        rows = np.full((len(dropped), width), self.scores.prunable, np.int32)
        rows[:, : dropped.shape[1]] = dropped
        totals = []
        for start in range(0, len(rows), self._lanes):
            count = min(self._lanes, len(rows) - start)
            part = np.resize(rows[start : start + count], (self._lanes, width))
            total, done = np.zeros(count), 0
            for indices in batches(self.size):
                options = {"data": self._data, "indices": indices.astype(np.int32), "count": np.int32(count)}
                costs = self._costs_without(dropped=part, **options)
                total += np.asarray(costs)[:count, : self.size - done].sum(axis=1, dtype=np.float64)
                done += len(indices)
            totals.append(total)
            self.examples += (count if self._one_by_one else self._lanes) * done
        return np.concatenate(totals) / self.size

    def first_passing(
        self, grid: Sequence[Keep], limit: float, *, masks: Sequence[int] = (0,)
    ) -> tuple[int, np.ndarray]:
        """The first kept counts of `grid` whose mean criterion over `masks` is at most `limit`.

        Returns:
            Their index and the criterion per mask; len(grid) and the dense criterion if none passes.
        """
        block = max(1, self._lanes // len(masks))
        for start in range(0, len(grid), block):
            candidates, order = list(grid[start : start + block]), self._order
            width = min(block, len(grid)) * len(masks)
            first = self._evaluate(candidates, masks, order[: self._first], width=width)
            allowed = limit * self.size * len(masks) * (1.0 + _SLACK)
            offsets = np.flatnonzero(first.sum(axis=(1, 2), dtype=np.float64) <= allowed)
            together = max(1, self._stretch_lanes // len(masks))
            for some in (offsets[i : i + together] for i in range(0, len(offsets), together)):
                keeps = [candidates[offset] for offset in some]
                found = self._first_of(keeps, limit, masks, order, first[some], width=together * len(masks))
                if found is not None:
                    return start + int(some[found[0]]), found[1]
        return len(grid), np.full(len(masks), self.dense())

    def passes(self, keep: Keep, limit: float, *, masks: Sequence[int] = (0,)) -> np.ndarray | None:
        """The criterion `[masks]` at these kept counts if its mean is at most `limit`, else None.

        Args:
            keep: kept counts.
            limit: the largest criterion that passes.
            masks: the masks over which the mean is taken.
        """
        nothing = np.zeros((1, len(masks), 0))
        found = self._first_of([keep], limit, masks, self._order, nothing, width=len(masks))
        return None if found is None else found[1]

    def _first_of(
        self,
        keeps: Sequence[Keep],
        limit: float,
        masks: Sequence[int],
        order: np.ndarray,
        known: np.ndarray,
        width: int,
    ) -> tuple[int, np.ndarray] | None:
        """The index of the first of `keeps` that passes and its criterion `[masks]`; None if none does.

        Args:
            keeps: kept counts; all are evaluated together, a stretch of examples at a time, until their sums fail.
            limit: the largest criterion that passes.
            masks: the masks over which the mean is taken.
            order: order `[N]` in which to take the examples.
            known: costs `[keeps, masks, n]` of the first n examples of `order`, which have been evaluated.
            width: as in `_evaluate`.
        """
        done = np.full(len(keeps), known.shape[2])
        costs = np.zeros((len(keeps), len(masks), self.size))
        costs[:, :, : known.shape[2]] = known
        allowed = limit * self.size * len(masks)
        alive, passed = list(range(len(keeps))), None
        while alive and passed is None:
            begin = done[alive[0]]
            if begin == self.size:
                passed = self._passing(keeps[alive[0]], costs[alive[0]], limit, masks)
                alive = alive[passed is None :]
                continue
            # Most fail soon. Where masks do not run together, later ones then wait until the first has failed.
            some = alive[:1] if self._one_by_one and begin > self.size / 4 else alive
            indices = order[begin : begin + self._stretch]
            new = self._evaluate([keeps[i] for i in some], masks, np.resize(indices, self._stretch), width=width)
            costs[some, :, begin : begin + len(indices)] = new[..., : len(indices)]
            done[some] += len(indices)
            alive = [i for i in alive if costs[i].sum() <= allowed * (1.0 + _SLACK)]  # NaN ends it too
        longest = max(range(len(keeps)), key=lambda i: (done[i], i))
        self._hardness[order[: done[longest]]] = np.nan_to_num(
            costs[longest, :, : done[longest]].sum(axis=0), nan=np.inf
        )
        self._order = np.argsort(-self._hardness, kind="stable")
        return None if passed is None else (alive[0], passed)

    def _passing(self, keep: Keep, costs: np.ndarray, limit: float, masks: Sequence[int]) -> np.ndarray | None:
        """The criterion `[masks]` at these kept counts if its mean is at most `limit`, from `costs` `[masks, N]`."""
        allowed = limit * self.size * len(masks)
        if costs.sum() <= allowed * (1.0 - _SLACK):
            return costs.sum(axis=1) / self.size
        losses = np.array([self.exact(keep, mask) for mask in masks])
        return losses if losses.mean() <= limit else None

    def _evaluate(self, keeps: Sequence[Keep], masks: Sequence[int], indices: np.ndarray, *, width: int) -> np.ndarray:
        """Costs `[keeps, masks, n]` of the examples `indices [n]`.

        Where masks run together, a call is `width` wide, or all lanes, whatever is left of it: one program for all.
        """
        pairs = [(keep, mask) for keep in keeps for mask in masks]
        width, results = self._lanes if self._one_by_one else min(width, self._lanes), []
        for start in range(0, len(pairs), width):
            part = pairs[start : start + width]
            counts = np.resize(np.array([keep for keep, _ in part], np.int32), (width, len(self.scores.sizes)))
            which = np.resize(np.array([mask for _, mask in part], np.int32), width)
            options = {"data": self._data, "indices": indices.astype(np.int32), "count": np.int32(len(part))}
            results.append(np.asarray(self._costs(masks=which, keeps=counts, **options))[: len(part)])
            if self._data.loss is not None and (results[-1] < 0).any():  # the scan abandons masks by partial sums
                raise ValueError(
                    f"the loss of the data set is {results[-1].min():g} for an example: prunability needs losses ≥ 0; "
                    "add a constant, or subtract the smallest possible loss"
                )
            self.examples += (len(part) if self._one_by_one else width) * len(indices)
        return np.concatenate(results).reshape(len(keeps), len(masks), -1)

    def _full(self, keep: Keep, mask: int) -> np.ndarray:
        """Costs `[N]` of all examples under one mask."""
        (costs,) = concatenate_batches(
            lambda indices: (self._evaluate([keep], [mask], indices, width=1)[0, 0],), self.size
        )
        return costs
