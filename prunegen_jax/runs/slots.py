"""How many networks of a shape train, or are measured, at once: chosen for the backend, and kept in the workdir.

The last bits of a network depend on the size of the ensemble it was trained in, so a workdir stays with its choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from etils import epath

from prunegen_jax import training
from prunegen_jax.compute import memory as device
from prunegen_jax.networks import Network
from prunegen_jax.runs import files
from prunegen_jax.runs.snapshots import Task
from prunegen_jax.training import Recipe
from prunegen_jax.types import Dataset

MOST = 64  # on one device: beyond, a step takes longer in proportion
_LANES = 16  # likewise, for measuring


def choose(folder: epath.Path, tasks: Sequence[Task], wanted: int) -> int:
    """The slots for `tasks`, of one shape: `wanted` if it is not 0, else what the workdir keeps, else chosen anew.

    On a CPU one: there vmap gains nothing. Elsewhere as many as the devices' memory holds, 64 on each at most, no more
    than there are tasks.

    Raises:
        ValueError: if `wanted` is negative or no multiple of the devices.
    """
    devices = len(jax.local_devices())
    if wanted < 0 or (wanted > 1 and wanted % devices):
        raise ValueError(f"run.slots={wanted} must be 0, 1 or a positive multiple of the {devices} devices")
    if wanted:
        return wanted
    return _kept(folder, "slots", tasks, MOST, lambda: 1 if jax.default_backend() == "cpu" else _chosen(tasks, devices))


def lanes(folder: epath.Path, tasks: Sequence[Task], wanted: int) -> int:
    """How many networks of one shape are measured at once: as for `choose`, 16 on each device at most.

    Searches of different length leave lanes idle, and each brings a batch of examples or masks.
    """
    devices = len(jax.local_devices())
    most = _LANES * devices
    if wanted or jax.default_backend() == "cpu":
        return min(wanted or 1, most)
    return _kept(folder, "lanes", tasks, _LANES, lambda: min(most, -(-len(tasks) // devices) * devices))


def _kept(folder: epath.Path, what: str, tasks: Sequence[Task], most: int, find: Callable[[], int]) -> int:
    """The number called `what` that the workdir keeps for the shape of `tasks`; if it has none, what `find` finds.

    It counts if it might have been chosen: `most` on each device at most, and 1 or a multiple of the devices.
    """
    devices = len(jax.local_devices())
    shape = {"backend": jax.default_backend(), "devices": devices, "shape": tasks[0].point.shape}
    name = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
    place = files.inside(folder / "slots", f"{name}.json" if what == "slots" else f"{name}.{what}.json")
    try:
        kept = files.read_json(place).get(what)
    except (FileNotFoundError, files.DamagedError):
        kept = None  # as on the first run: it is chosen, and written whole
    if type(kept) is int and (kept == 1 or (kept in range(1, most * devices + 1) and kept % devices == 0)):
        return kept
    found = find()
    files.write_json(place, {what: found, **shape})
    return found


def _chosen(tasks: Sequence[Task], devices: int) -> int:
    size = bytes_of_slot(tasks[0].network, tasks[0].recipe, tasks[0].split.train)
    return fitting(size, device.device_memory(), devices, len(tasks))


def group_size(wanted: int) -> int:
    """Networks in a unit of work: `wanted`, or for 0 few on a CPU, where one trains at a time, and many elsewhere."""
    return wanted or (4 if jax.default_backend() == "cpu" else 4 * MOST)


def fitting(size: int, memory: int, devices: int, count: int) -> int:
    """Slots of `size` bytes for `count` networks on `devices` of `memory` bytes each: a multiple of the devices.

    One if there is one device and one network, or one slot fills the memory.
    """
    each = min(MOST, int(device.MEMORY_SHARE * memory / size), -(-count // devices))
    return each * devices if each > 1 or (each == 1 and devices > 1 and count > 1) else 1


def bytes_of_slot(network: Network, recipe: Recipe, data: Dataset) -> int:
    """Memory that training one network takes on the device, the data excepted, as the compiler counts it."""
    program = training.compile_for(network, recipe)
    h = training.hyper(learning_rate=1.0, weight_decay=0.0, dropout=0.0, seed=0)
    one = (jax.eval_shape(program.init, h.key), h, *[jnp.int32(0)] * 3)
    state, h, *numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), one)
    needed = program.run.lower(state, h, data, *numbers).compile().memory_analysis()
    whole = needed.temp_size_in_bytes + needed.argument_size_in_bytes + needed.output_size_in_bytes
    return whole - sum(leaf.nbytes for leaf in jax.tree.leaves(data))
