"""The training set as the programs of training take it: on an accelerator with every input in one row."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from prunegen_jax.types import Dataset, Loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """A data set stored with every input in one row.

    A TPU pads the last axis of an array to 128 entries, so it stores images `[N, H, W, C]` with the examples last. To
    gather batches it makes a padded copy of them in every call, four times their size; of rows it needs none.

    Attributes:
        data: the data set, with inputs `[N, d]`.
        shape: of one input; d is the product of its sizes.
    """

    data: Dataset
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @property
    def inputs(self) -> jax.Array:
        """The rows, `[N, d]`."""
        return self.data.inputs

    @property
    def loss(self) -> Loss | None:
        """As that of `Dataset`."""
        return self.data.loss

    def __len__(self) -> int:
        return len(self.data)

    def take(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What `Dataset.take` of the same examples returns."""
        rows = jnp.take(self.data.inputs, indices, axis=0)
        labels = jnp.take(self.data.labels, indices, axis=0)
        return self.data.standardise(rows.reshape(*indices.shape, *self.shape)), labels


def in_rows(data: Dataset) -> Rows:
    """`data` with every input in one row."""
    rows = data.inputs.reshape(len(data), -1)
    return Rows(dataclasses.replace(data, inputs=rows), tuple(data.inputs.shape[1:]))


def stored(data: Dataset) -> Dataset | Rows:
    """`data` in the order that the backend gathers from: unchanged on a CPU, where a row would be a copy."""
    return data if jax.default_backend() == "cpu" or data.inputs.ndim <= 2 else in_rows(data)
