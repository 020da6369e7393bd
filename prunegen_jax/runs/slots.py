"""How many networks of a shape train, or are measured, at once: chosen for the backend, and kept in the workdir.

The last bits of a network depend on the size of the ensemble it was trained in, so a workdir keeps its choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from etils import epath

from prunegen_jax import training
from prunegen_jax.compute import memory
from prunegen_jax.networks import Network
from prunegen_jax.runs import files, schema, workdir
from prunegen_jax.runs.task import Task
from prunegen_jax.training import Recipe
from prunegen_jax.training.rows import stored
from prunegen_jax.types import Dataset

MOST = 64  # slots on one device: beyond, a step takes longer in proportion
_MOST_LANES = 16  # on one device, for measuring


def choose(folder: epath.Path, tasks: Sequence[Task], wanted: int) -> int:
    """The number of slots for training `tasks`, of one shape.

    On a CPU one: there vmap gains nothing. Elsewhere as many as the devices' memory holds, 64 on each at most, no more
    than there are tasks.

    Args:
        folder: the workdir, whose earlier choice counts.
        tasks: of one shape.
        wanted: the number, or 0 to choose one.

    Raises:
        ValueError: if `wanted` is negative or not a multiple of the devices.
    """
    devices = len(jax.local_devices())
    if wanted < 0 or (wanted > 1 and wanted % devices):
        raise ValueError(f"run.slots={wanted} must be 0, 1 or a positive multiple of the {devices} devices")
    if wanted:
        return wanted

    def choose_new() -> int:
        return 1 if jax.default_backend() == "cpu" else _slots_that_fit(tasks, devices)

    return _keep(folder, "slots", tasks, MOST, choose_new)


def lanes_for(folder: epath.Path, tasks: Sequence[Task], wanted: int) -> int:
    """How many networks of one shape are measured at once: as for `choose`, but 16 on each device at most.

    Searches of different length leave lanes idle, and each brings a batch of examples or masks.
    """
    devices = len(jax.local_devices())
    most = _MOST_LANES * devices
    if wanted or jax.default_backend() == "cpu":
        return min(wanted or 1, most)
    return _keep(folder, "lanes", tasks, _MOST_LANES, lambda: min(most, -(-len(tasks) // devices) * devices))


def _keep(folder: epath.Path, what: str, tasks: Sequence[Task], most: int, choose_new: Callable[[], int]) -> int:
    """The number called `what` that the workdir keeps for the shape of `tasks`; a new one if it has none.

    It counts only if it might have been chosen: 1 or a multiple of the devices, `most` on each of them at most.
    """
    devices = len(jax.local_devices())
    shape = {"backend": jax.default_backend(), "devices": devices, "shape": tasks[0].point.shape}
    name = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
    place = workdir.path(folder, "slots", name if what == "slots" else f"{name}.{what}")
    try:
        kept = files.read_json(place).get(what)
    except (FileNotFoundError, files.DamagedError):
        kept = None  # as on the first run: it is chosen, and written completely
    if schema.is_integer(kept) and (kept == 1 or (kept in range(1, most * devices + 1) and kept % devices == 0)):
        return kept
    number = choose_new()
    files.write_json(place, {what: number, **shape})
    return number


def _slots_that_fit(tasks: Sequence[Task], devices: int) -> int:
    size = bytes_of_slot(tasks[0].network, tasks[0].recipe, tasks[0].split.train)
    return slots_in_memory(size, memory.device_memory(), devices, len(tasks))


def group_size(wanted: int) -> int:
    """Networks in a unit of work: `wanted`, or for 0 few on a CPU, where one trains at a time, and many elsewhere."""
    return wanted or (4 if jax.default_backend() == "cpu" else 4 * MOST)


def slots_in_memory(size: int, available: int, devices: int, count: int) -> int:
    """Slots of `size` bytes for `count` networks on `devices` of `available` bytes each: a multiple of the devices.

    One if there is one device and one network, or one slot fills the memory.
    """
    each = min(MOST, int(memory.MEMORY_SHARE * available / size), -(-count // devices))
    return each * devices if each > 1 or (each == 1 and devices > 1 and count > 1) else 1


def bytes_of_slot(network: Network, recipe: Recipe, data: Dataset) -> int:
    """Memory that training one network takes on the device, the data excepted, as the compiler counts it."""
    program = training.compile_for(network, recipe)
    h = training.hyper(learning_rate=1.0, weight_decay=0.0, dropout=0.0, seed=0)
    one = (jax.eval_shape(program.init, h.key), h, *[jnp.int32(0)] * 3)
    state, h, *numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), one)
    data = jax.eval_shape(stored, data)
    needed = program.run.lower(state, h, data, *numbers).compile().memory_analysis()
    whole = needed.temp_size_in_bytes + needed.argument_size_in_bytes + needed.output_size_in_bytes
    return whole - sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(data))
