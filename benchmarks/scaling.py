"""One sweep on one and on two single-threaded workers, local and Ray: the speed-up, and what the driver costs a model.

    python benchmarks/scaling.py [--epochs=E] [--networks=N]
    python benchmarks/scaling.py --smoke    # seconds: that it runs, not how fast

The networks differ in their seeds alone and train for the same number of epochs, so that all groups are equal work. The
cache of compiled programs is warm on all sides, and each time is that of the whole command, its start included (that of
a Ray cluster is not). The overhead is a slope over the number of networks, with next to nothing to train: the time of
the command, less the time of the same groups in a plain loop. Needs two idle cores, and Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEASURES = ("parameter_norm", "inverse_margin", "prunability_prefix")
WORK = "--stage=train,measure"
GROUP = 4
LOOP = """
import pathlib, sys
from benchmarks import scaling
from prunegen_jax.runs import points
from prunegen_jax.runs.executors.base import RunContext, Unit, attempt

config = scaling.get_config(sys.argv[1])
for group in points.groups(points.points(config), size=config.run.group):
    unit = Unit(tuple(group), config.measures.names, ("train", "measure"))
    outcome = attempt(RunContext(sys.argv[2], config), unit)
    assert outcome.status == "done", outcome
"""


def get_config(variant: str):
    """`NETWORKS-EPOCHS`: that many networks of one shape, trained for that many epochs each; `-short`: one measure."""
    from prunegen_jax import get_config as shipped

    networks, epochs, *short = variant.split("-")
    config = shipped("sweep")
    config.measures.names = ("parameter_norm",) if short else MEASURES
    config.train.target = 1e-30  # never reached
    config.train.max_epochs = int(epochs)
    config.sweep.axes = (("seed", tuple(range(int(networks)))),)
    config.run.group = GROUP
    return config


def main():
    import peers  # here, because run.py reads this file as a config

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--networks", type=int, default=16)
    options.add_argument("--epochs", type=int, default=1200)
    options.add_argument("--smoke", action="store_true", help="4 networks for an epoch: that it runs, not how fast")
    given = options.parse_args()
    left_out = peers.missing("ray", smoke=given.smoke)
    with tempfile.TemporaryDirectory() as folder:
        if given.smoke:
            smoke(Runner(pathlib.Path(folder)), left_out)
        else:
            bench(pathlib.Path(folder), f"{given.networks}-{given.epochs}", given.networks)


def smoke(run, left_out):
    """Runs each way of `bench` once, in short."""
    variant = f"{GROUP}-1-short"
    seconds = {"local": run.driver(variant, "--config.run.workers=2"), "loop": run.loop(variant)}
    if not left_out:
        seconds["ray"] = run.on_ray(variant, nodes=1)
    print(json.dumps({"seconds": seconds, "left_out": left_out}))


def bench(folder, variant, networks):
    """Runs everything in `folder` and prints the table and, last, one JSON object."""
    run = Runner(folder)
    for name in (variant, f"{GROUP}-1"):
        run.driver(name, "--config.run.workers=1")  # fills the cache of programs
    seconds = {f"local, {n}": run.driver(variant, f"--config.run.workers={n}") for n in (1, 2)}
    seconds |= {f"Ray, {n}": run.on_ray(variant, nodes=n) for n in (1, 2)}
    few, many = 2 * GROUP, 12 * GROUP
    slopes = [
        (time_of(f"{many}-1") - time_of(f"{few}-1")) / (many - few)
        for time_of in (lambda name: run.driver(name, "--config.run.workers=1"), run.loop)
    ]
    print(f"{networks} networks; load average {os.getloadavg()[0]:.1f}")
    for name, value in seconds.items():
        print(f"{name} worker(s): {value:6.1f} s")
    print(f"a network with next to nothing to do: {slopes[0]:.3f} s with a driver, {slopes[1]:.3f} s in a loop")
    ratios = {
        "speedup_local_2": round(seconds["local, 1"] / seconds["local, 2"], 3),
        "speedup_ray_2": round(seconds["Ray, 1"] / seconds["Ray, 2"], 3),
        "overhead_per_model_s": round(slopes[0] - slopes[1], 4),
    }
    print(json.dumps(ratios))


class Runner:
    """Runs commands in workdirs of their own under a folder, and compares the records they make."""

    def __init__(self, folder):
        self._folder, self._count, self._records = folder, 0, {}
        self._variables = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def driver(self, variant, *arguments):
        """Seconds of the command line with `arguments`."""
        config = f"--config={__file__}:{variant}"
        return self._time(variant, lambda workdir: ["run.py", config, f"--workdir={workdir}", *arguments, WORK])

    def loop(self, variant):
        """Seconds of the same groups one after the other in one process, which computes as a worker does."""
        from prunegen_jax.runs import processes

        return self._time(variant, lambda workdir: ["-c", LOOP, variant, workdir], **processes.environment(1))

    def on_ray(self, variant, *, nodes):
        """Seconds of the command line on a Ray cluster of that many nodes of one core."""
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=1)
            return self.driver(variant, "--executor=ray", f"--ray_address={cluster.address}")
        finally:
            cluster.shutdown()

    def _time(self, variant, command, **variables):
        self._count += 1
        workdir = self._folder / str(self._count)
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, *map(str, command(workdir))], cwd=ROOT, env=self._variables | variables, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        made = {path.name: path.read_bytes() for path in (workdir / "records").iterdir()}
        assert self._records.setdefault(variant, made) == made, f"{workdir} has other records than the first run"
        return seconds


if __name__ == "__main__":
    main()
