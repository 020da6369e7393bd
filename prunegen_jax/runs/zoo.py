"""Zoos of small CNNs in the format of Unterthiner et al. (2020): one matrix of weights, many networks at a time.

A folder holds `weights.npy`, a float matrix `[networks, parameters]`; `layout.csv`, which names its columns (varname,
start_idx, end_idx, shape); and `metrics.csv` or `metrics.csv.gz` with a line per network. The network of every row:
3x3 convolutions of stride 2 without padding, each with a bias and the activation of `config.activation`, the mean over
positions, a dense layer. Images have one channel, the mean of their channels, in [-1, 1].
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax import measures
from prunegen_jax.compute import lockstep
from prunegen_jax.runs.tables.layouts import keep_one_step
from prunegen_jax.runs.tables.text_files import read_rows
from prunegen_jax.types import Apply, Dataset, Estimate, TrainedModel

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "selu": jax.nn.selu, "sigmoid": jax.nn.sigmoid}
GROUP = 32  # networks measured before their values are yielded, at least


@dataclasses.dataclass(frozen=True, eq=False)
class Zoo:
    """The networks of a folder.

    Attributes:
        weights: `[networks, parameters]`, not read before it is used.
        layout: for each parameter its layer, its name there, its first and last column and its shape.
        header: the columns of the metrics.
        rows: the metrics of each network.
    """

    weights: np.ndarray
    layout: tuple[tuple[str, str, slice, tuple[int, ...]], ...]
    header: list[str]
    rows: list[list[str]]

    def params(self, network: int) -> dict[str, dict[str, jax.Array]]:
        """The parameters of a network, by layer and name."""
        row = np.asarray(self.weights[network], dtype=np.float32)
        params: dict[str, dict[str, jax.Array]] = {}
        for layer, name, columns, shape in self.layout:
            params.setdefault(layer, {})[name] = jnp.asarray(row[columns].reshape(shape))
        return params

    def activation(self, network: int) -> str:
        """The activation of a network."""
        return self.rows[network][self.header.index("config.activation")]

    def last(self, *, step: int | None = None) -> list[int]:
        """The networks to measure: of each training the last, or that of a step."""
        numbered = [[*row, str(i)] for i, row in enumerate(self.rows)]
        rows, _ = keep_one_step([*self.header, "place"], numbered, ("modeldir",), step)
        return [int(row[-1]) for row in rows]


def read_zoo(folder: str | os.PathLike[str]) -> Zoo:
    """The zoo in a folder.

    Raises:
        ValueError: if a file is missing or damaged, or they do not fit to each other.
    """
    path = pathlib.Path(folder)
    metrics = next((path / name for name in ("metrics.csv.gz", "metrics.csv") if (path / name).is_file()), None)
    if metrics is None:
        raise ValueError(f"{str(path)!r} has no metrics.csv.gz; a zoo is weights.npy, layout.csv and metrics.csv.gz")
    try:
        weights = np.load(path / "weights.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path / 'weights.npy')!r} cannot be read: {error}") from error
    layout, (header, rows) = _layout(path / "layout.csv"), read_rows(metrics)
    if "config.activation" not in header:
        raise ValueError(f"{str(metrics)!r} has no column 'config.activation'")
    unknown = {row[header.index("config.activation")] for row in rows} - set(ACTIVATIONS)
    if unknown:
        raise ValueError(f"the activation {min(unknown)!r} is unknown; it must be one of {', '.join(ACTIVATIONS)}")
    if weights.shape != (len(rows), layout[-1][2].stop):
        raise ValueError(
            f"weights.npy is {weights.shape}, but there are {len(rows)} lines of metrics and "
            f"{layout[-1][2].stop} parameters in layout.csv"
        )
    return Zoo(weights, layout, header, rows)


def _layout(path: pathlib.Path) -> tuple[tuple[str, str, slice, tuple[int, ...]], ...]:
    header, rows = read_rows(path)
    entries = []
    try:
        for row in rows:
            cells = dict(zip(header, row, strict=True))
            layer, name = cells["varname"].removesuffix(":0").split("/")[-2:]
            columns, shape = slice(int(cells["start_idx"]), int(cells["end_idx"])), ast.literal_eval(cells["shape"])
            if columns.stop - columns.start != math.prod(shape):
                raise ValueError(f"{cells['varname']} has {columns.stop - columns.start} columns and shape {shape}")
            entries.append((layer, name, columns, tuple(shape)))
    except (KeyError, ValueError, SyntaxError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a valid layout: {error!r}") from error
    return tuple(sorted(entries, key=lambda entry: entry[2].start))


@functools.lru_cache
def network(layers: tuple[str, ...], activation: str) -> Apply:
    """The function of a zoo's networks: convolutions, the mean over positions, and the last of `layers`, dense.

    One object for equal arguments, so that networks share their programs.
    """

    def apply(params: Mapping[str, Mapping[str, jax.Array]], images: jax.Array) -> jax.Array:
        x = images
        for layer in layers[:-1]:
            kernel = params[layer]["kernel"]
            x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = ACTIVATIONS[activation](x + params[layer]["bias"][None, None, None])
        return x.mean(axis=(1, 2)) @ params[layers[-1]]["kernel"] + params[layers[-1]]["bias"][None]

    return apply


def images_of(images: np.ndarray) -> jax.Array:
    """Images `[n, height, width]`, or with channels, 0 to 255, as the networks see them, `[n, height, width, 1]`."""
    scaled = np.asarray(images, dtype=np.float32) / 255 * 2 - 1
    return jnp.asarray(scaled[..., None] if scaled.ndim == 3 else scaled.mean(axis=-1, keepdims=True))


def measure_zoo(
    zoo: Zoo,
    networks: Sequence[int],
    train: Dataset,
    names: Sequence[str],
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    lanes: int | None = None,
) -> Iterator[tuple[list[int], list[dict[str, Estimate]]]]:
    """Measures networks of a zoo, in groups of 32 or `lanes` of one activation.

    Args:
        zoo: the zoo.
        networks: which of its networks.
        train: the training images, see `images_of`.
        names: of the measures.
        options: of the measures, by name.
        seed: of the measures that sample.
        lanes: networks that share a vmapped program; None for 32, and one on a CPU, where vmap takes twice as long.

    Yields:
        The networks of a group, and the estimates of each by name.
    """
    lanes = lanes or (1 if jax.default_backend() == "cpu" else GROUP)
    size = max(GROUP, lanes)
    layers = tuple(dict.fromkeys(entry[0] for entry in zoo.layout))
    by_activation: dict[str, list[int]] = {}
    for number in networks:
        by_activation.setdefault(zoo.activation(number), []).append(number)
    for activation, members in by_activation.items():
        apply = network(layers, activation)
        for start in range(0, len(members), size):
            group = members[start : start + size]
            models = [TrainedModel(apply, zoo.params(i), train, name=f"network {i}") for i in group]
            found: list[dict[str, Estimate]] = [{} for _ in group]
            for name in names:
                own = {name: dict((options or {}).get(name, {}))}
                calls = [
                    functools.partial(
                        measures.measure, model, [name], key=jax.random.fold_in(jax.random.key(seed), i), options=own
                    )
                    for i, model in zip(group, models, strict=True)
                ]
                for row, answer in zip(found, lockstep.run(calls, lanes=lanes, common=train), strict=True):
                    row |= answer
            yield group, found
