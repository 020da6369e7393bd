"""Costs of a sweep: compiling per shape, the share of the checks; slots that fit a memory; the cache of programs."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from prunegen_jax import networks
from prunegen_jax.runs import compilation, costs, files, slots, task
from prunegen_jax.runs import points as sweeps
from prunegen_jax.training import Recipe
from prunegen_jax.types import Dataset
from tests.support import experiments

ROOT = pathlib.Path(__file__).parents[2]


def points():
    config = experiments.get_config()
    config.sweep.axes = (("model.width", (4, 8)), ("seed", (0, 1)))
    return sweeps.points(config)


def test_compiling_by_shape_and_the_share_of_checks(tmp_path):
    folder = epath.Path(tmp_path)
    assert costs.summary(folder, points()) == ""
    seconds = {0: (10.0, 6.0, 3.0, 0.5), 1: (2.0, 0.0, 1.5, 0.25)}  # by seed
    for point in points():
        values = dict(zip(("train", "compile", "update", "check"), seconds[point.fields["seed"]], strict=True))
        files.write_json(folder / "times" / f"{point.name}.json", values)
    # Of 24 s, 12 s are compiling; 1.5 s of the other 12 s are checks.
    expected = "training took 24 s: compiling width=4 6.0 s; width=8 6.0 s; loss checks 12.5% of the rest"
    assert costs.summary(folder, points()) == expected
    (folder / "times" / f"{points()[0].name}.json").write_text("{")
    assert "training took 14 s: compiling width=4 0.0 s; width=8 6.0 s" in costs.summary(folder, points())


@pytest.mark.parametrize(
    ("size", "memory", "devices", "count", "expected"),
    [
        (1 << 20, 8 << 30, 1, 1000, 64),  # no more than 64 on a device
        (1 << 30, 8 << 30, 1, 1000, 4),  # 0.6 of 8 GiB holds four of 1 GiB
        (1 << 30, 8 << 30, 8, 1000, 32),
        (1 << 20, 8 << 30, 1, 10, 10),  # no more than there are networks
        (1 << 20, 8 << 30, 8, 10, 16),  # a multiple of the devices
        (1 << 20, 8 << 30, 8, 3, 8),
        (9 << 30, 8 << 30, 8, 1000, 1),  # larger than the memory: let it try one
        (1 << 20, 8 << 30, 8, 1, 1),
    ],
)
def test_slots_that_fit(size, memory, devices, count, expected):
    assert slots.slots_in_memory(size, memory, devices, count) == expected


def test_the_memory_of_a_slot_grows_with_the_batch():
    data = Dataset(jnp.zeros((64, 8, 8, 1), jnp.uint8), jnp.zeros(64, jnp.int32), jnp.zeros(1), jnp.ones(1))
    network = networks.build("nin", input_shape=(8, 8, 1), classes=10, depth=1, width=8)
    small, large = (slots.bytes_of_slot(network, Recipe(batch_size=batch), data) for batch in (8, 32))
    activations = 16 * 8 * 4  # bytes of one of the three activations of the block, per example
    assert 3 * 8 * activations < small
    assert large - small > 3 * 24 * activations


def test_a_workdir_keeps_its_slots(tmp_path):
    folder, config = epath.Path(tmp_path), experiments.get_config()
    tasks = [task.build_task(point, config) for point in sweeps.points(config)[:2]]
    assert slots.choose(folder, tasks, 0) == 1  # on a CPU
    (kept,) = (folder / "slots").iterdir()
    files.write_json(kept, files.read_json(kept) | {"slots": 3})
    assert slots.choose(folder, tasks, 0) == 3
    assert slots.choose(folder, tasks, 2) == 2  # the config comes first
    kept.write_text("{")
    assert slots.choose(folder, tasks, 0) == 1
    with pytest.raises(ValueError, match="run.slots=-1 must be 0, 1 or a positive multiple of the 1 devices"):
        slots.choose(folder, tasks, -1)


CACHED = """
import sys, jax
from prunegen_jax.runs import compilation
jax.numpy.ones(3)  # compiled before there is a cache
compilation.use_cache(sys.argv[1])
watch = compilation.Watch()
with watch.span("update"):
    jax.jit(lambda key: jax.random.normal(key, (7, 9)).sum())(jax.random.key(0))
lap = watch.lap()
print(lap["compile"] > 0.2, lap["train"] >= lap["compile"] + lap["update"], watch.lap()["compile"])
"""


def test_programs_are_kept(tmp_path):
    for _ in range(2):
        command = [sys.executable, "-c", CACHED, str(tmp_path / "cache")]
        environment = {"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split()[1:] == ["True", "0.0"]
    assert any((tmp_path / "cache").iterdir())


def test_a_cache_that_is_there_already_stays():
    before = jax.config.jax_compilation_cache_dir
    compilation.use_cache("/nowhere")
    assert before
    assert jax.config.jax_compilation_cache_dir == before
