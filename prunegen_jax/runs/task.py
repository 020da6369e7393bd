"""What the fields of a point stand for: its network, its data set, its hyperparameters and its recipe."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from prunegen_jax import data, training
from prunegen_jax.networks import Network, build
from prunegen_jax.runs.points import Point
from prunegen_jax.training import Hyper, Recipe
from prunegen_jax.types import Dataset

TEST = "test"  # what the test set of the data set itself is called among the further ones


class Task(NamedTuple):
    """A point and what its fields stand for; `slots` is the size of the ensemble that it is trained in,
    `convolutions` the form of its convolutions."""

    point: Point
    network: Network
    split: data.Split
    h: Hyper
    recipe: Recipe
    slots: int = 1
    convolutions: str = "auto"


def build_task(point: Point, config: ConfigDict) -> Task:
    """Everything needed to train `point`.

    Raises:
        ValueError: if a field does not fit.
        FileNotFoundError: if its data set is not there.
    """
    fields = point.fields
    options = {key[6:]: value for key, value in fields.items() if key.startswith("train.")}
    rates = {key: options.pop(key) for key in ("learning_rate", "weight_decay", "dropout")}
    h, recipe = training.hyper(**rates, seed=fields["seed"]), Recipe(**options)
    split = load_split(fields, directory=config.data.dir, cache_dir=config.data.cache_dir)
    recipe.check(len(split.train))
    shape, form = split.train.inputs.shape[1:], config.run.convolutions
    network = build_network(fields, input_shape=shape, classes=split.classes, convolutions=form)
    if fields["train.dropout"] and not network.takes_dropout:
        name = fields["model.name"]
        raise ValueError(
            f"train.dropout={fields['train.dropout']} must be 0: model.name={name!r} takes no dropout_rate"
        )
    return Task(point, network, split, h, recipe, convolutions=form)


def build_network(
    fields: dict[str, Any], *, input_shape: tuple[int, ...], classes: int, convolutions: str = "auto"
) -> Network:
    """The network that the `model.*` fields of a point describe.

    Args:
        fields: of the point.
        input_shape: of one example.
        classes: K.
        convolutions: a name of `compute.planes.FORMS`.

    Raises:
        ValueError: if they describe none.
    """
    options = {key[6:]: value for key, value in fields.items() if key.startswith("model.")}
    options.pop("conv", None)  # of version 0.2 and older: how convolutions were computed
    try:
        name = options.pop("name")
        return build(name, input_shape=input_shape, classes=classes, convolutions=convolutions, **options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the fields model.* do not describe a network: {error!r}") from error


def load_split(
    fields: dict[str, Any], *, directory: str | None, cache_dir: str | None, download: bool = True
) -> data.Split:
    """The data set that the `data.*` fields of a point describe; the latest two are kept in memory.

    Args:
        fields: of the point.
        directory: where TFDS finds its prepared sets; None for TFDS's own default.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        download: let TFDS download and prepare a set that is not there.

    Raises:
        ValueError: if the fields describe no data set.
        FileNotFoundError: if the data set is not there.
    """
    kinds = {"name": str, "train_size": int | None, "label_noise": int | float, "seed": int}
    for key, kind in kinds.items():
        if not isinstance(fields.get(f"data.{key}", ()), kind):
            raise ValueError(f"data.{key}={fields.get(f'data.{key}')!r} does not describe a data set")
    options = (fields[f"data.{key}"] for key in ("train_size", "label_noise", "seed"))
    return _split(fields["data.name"], directory, cache_dir, download, *options)


def load_shifts(config: ConfigDict, fields: dict[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Dataset]]:
    """The test sets `names` for networks of a point: "test" for the data set's own, or one of `config.data.shifts`.

    Args:
        config: of the run.
        fields: of the point.
        names: of the test sets.

    Raises:
        ValueError: if one does not fit the point's data set.
        FileNotFoundError: if one is not there.
    """
    split = load_split(fields, directory=config.data.dir, cache_dir=config.data.cache_dir)
    for name in names:
        inputs, labels = split.test.inputs, split.test.labels
        if name != TEST:
            inputs, labels = _shift(name, fields["data.name"], config.data.dir, config.data.cache_dir)
        yield name, dataclasses.replace(split.train, inputs=jnp.asarray(inputs), labels=jnp.asarray(labels))


def test_sets(config: ConfigDict) -> tuple[str, ...]:
    """The names of all test sets of a run.

    Raises:
        ValueError: for a name that is no text, or given twice.
    """
    names = (TEST, *config.data.shifts)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"data.shifts={config.data.shifts!r} must be distinct names other than {TEST!r}")
    return names


@functools.lru_cache(maxsize=2)
def _split(
    name: str,
    directory: str | None,
    cache_dir: str | None,
    download: bool,
    train_size: int | None,
    label_noise: float,
    seed: int,
) -> data.Split:
    raw = _raw(name, directory, cache_dir, download)
    return data.split(raw, train_size=train_size, label_noise=label_noise, seed=seed)


@functools.lru_cache(maxsize=16)
def _shift(shift: str, name: str, directory: str | None, cache_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    return data.load_shift(shift, _raw(name, directory, cache_dir, True), dir=directory, cache_dir=cache_dir)


@functools.lru_cache(maxsize=1)
def _raw(name: str, directory: str | None, cache_dir: str | None, download: bool) -> data.Raw:
    return data.load(name, dir=directory, cache_dir=cache_dir, download=download)
