"""Arrays and functions with a leading axis, of lanes or of slots, split over several devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def check_multiple(name: str, value: int, devices: Sequence[jax.Device]) -> None:
    """Checks that an axis can be split evenly over devices; no devices stand for JAX's default device.

    Raises:
        ValueError: if `value` is below 1 or not a multiple of the number of devices.
    """
    count = max(1, len(devices))
    if value < 1 or value % count:
        raise ValueError(f"{name}={value} must be a positive multiple of the {count} devices")


def shardings(devices: Sequence[jax.Device], axis: str) -> tuple[jax.NamedSharding | None, jax.NamedSharding | None]:
    """Shardings of arrays with the leading axis called `axis`, and of arrays that every device has whole.

    Returns:
        Both shardings; None and None for fewer than two devices.
    """
    if len(devices) < 2:
        return None, None
    mesh = _mesh(devices, axis)
    return jax.NamedSharding(mesh, jax.P(axis)), jax.NamedSharding(mesh, jax.P())


def split_over(
    function: Callable[..., Any], devices: Sequence[jax.Device], axis: str, *, split: Sequence[bool]
) -> Callable[..., Any]:
    """`function`, each device computing its share of the leading axis; nothing passes between the devices.

    Args:
        function: of pytrees; all that it returns has the leading axis.
        devices: fewer than two leave `function` as it is.
        axis: name of the leading axis.
        split: for each argument whether it has the leading axis; the others are given whole to every device.
    """
    if len(devices) < 2:
        return function
    specs = tuple(jax.P(axis) if has_axis else jax.P() for has_axis in split)
    return jax.shard_map(function, mesh=_mesh(devices, axis), in_specs=specs, out_specs=jax.P(axis), check_vma=False)


def _mesh(devices: Sequence[jax.Device], axis: str) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.asarray(devices), (axis,))
