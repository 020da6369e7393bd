"""Grids and their pairs, from codes of the axes."""

import numpy as np

from prunegen_jax.judging import grid


def make_grid(codes, repeats=None):
    axes = tuple(f"a{i}" for i in range(codes.shape[1]))
    repeats = np.zeros(len(codes), dtype=np.int64) if repeats is None else repeats
    return grid.Grid(axes, codes, grid.combine(codes), repeats)


def pairs_of(codes, repeats=None):
    return tuple(grid.pairs_along(make_grid(codes, repeats)))
