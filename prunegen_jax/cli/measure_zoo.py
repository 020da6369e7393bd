"""`prunegen measure --zoo=DIR`: measures of thousands of small networks from one matrix of weights."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from prunegen_jax import data
from prunegen_jax.measures import check_options, select
from prunegen_jax.runs import files
from prunegen_jax.runs.tables.write import csv_text
from prunegen_jax.runs.zoo import Zoo, images_of, measure_zoo, read_zoo
from prunegen_jax.types import Dataset, Estimate


def add_options(p: argparse.ArgumentParser) -> None:
    """Adds the options of a zoo to the parser of `prunegen measure`."""
    p.add_argument(
        "--zoo",
        metavar="DIR",
        help="measure the networks of a zoo, a folder with weights.npy, layout.csv and metrics.csv.gz",
    )
    p.add_argument(
        "--data",
        help="with --zoo: the training images: the name of a data set, or an .npz with images (0 to 255) and labels",
    )
    p.add_argument(
        "--train-size", type=int, default=2000, help="with --zoo: how many training images to use (default 2000)"
    )
    p.add_argument("--limit", type=int, help="with --zoo: how many networks to measure (default: all)")
    p.add_argument("--step", type=int, help="with --zoo: the step of each training run to measure (default: its last)")
    p.add_argument(
        "--lanes", type=int, help="with --zoo: networks that share a vmapped program (default 32; on a CPU 1)"
    )


def measure_networks(options: argparse.Namespace, by_measure: Mapping[str, Mapping[str, object]]) -> int:
    """Measures the networks of a zoo and writes them with their metrics to the file of --csv.

    Args:
        options: the command line.
        by_measure: options of measures.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: for a wrong option, and a zoo or data that cannot be read.
    """
    if options.file is not None or not options.csv or not options.data:
        raise ValueError("--zoo needs --data=NAME and --csv=FILE, and takes no Python file")
    for name in ("train_size", "lanes", "limit"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    names = select(options.measures if options.measures in {"fast", "all"} else options.measures.split(","))
    check_options(by_measure)
    zoo = read_zoo(options.zoo)
    chosen = zoo.last(step=options.step)[: options.limit]
    train = _images(options.data, options.train_size)
    print(f"{len(chosen)} of {len(zoo.rows)} networks, {len(names)} measures on {len(train.labels)} training images")
    rows: dict[int, dict[str, Estimate]] = {}
    with tqdm(total=len(chosen), unit="network", file=sys.stderr, leave=False, disable=None) as bar:
        arguments = {"options": by_measure, "seed": options.seed, "lanes": options.lanes}
        for group, found in measure_zoo(zoo, chosen, train, names, **arguments):
            rows |= dict(zip(group, found, strict=True))
            _write(options.csv, zoo, rows, names)  # what is measured is not lost
            bar.update(len(group))
    print(f"wrote {options.csv}; to judge it: prunegen judge {options.csv}")
    return 0


def _images(name: str, size: int) -> Dataset:
    """The first training images of a data set or an .npz, as the networks see them."""
    if os.path.isfile(name):
        try:
            with np.load(name, allow_pickle=False) as content:
                images, labels = content["images"], content["labels"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(f"--data: {name!r} is not an .npz file with images and labels: {error}") from error
    else:
        raw = data.load(name)
        images, labels = raw.train_images, raw.train_labels
    if images.ndim not in (3, 4) or len(images) != len(labels):
        raise ValueError(f"--data: images are {images.shape} and labels {labels.shape}; give [n, height, width, ...]")
    return Dataset(images_of(images[:size]), np.asarray(labels[:size], dtype=np.int32))


def _write(path: str, zoo: Zoo, rows: Mapping[int, Mapping[str, Estimate]], names: Sequence[str]) -> None:
    """Writes the metrics and the measures of the networks, `measure.NAME`, empty where a measure has no value."""
    header = [*zoo.header, *(f"measure.{name}" for name in names)]
    lines = [
        zoo.rows[i] + [repr(float(e[n].value)) if e[n].status == "ok" else "" for n in names]
        for i, e in sorted(rows.items())
    ]
    with files.atomic(path) as file:
        file.write(csv_text(header, lines).encode())
